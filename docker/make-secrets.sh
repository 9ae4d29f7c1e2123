#!/bin/sh
# Makes the random passwords that docker-compose.yml mounts, once; never overwrites one.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
for name in redis_password postgres_password orthanc_password grafana_password; do
    [ -e "secrets/$name" ] || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"secrets/$name"
done
# Keys of ncagate: `ncg_` and at least 43 characters. The service `keys` of docker-compose.yml gives them their scopes.
for name in prometheus_key orthanc_key; do
    [ -e "secrets/$name" ] || printf 'ncg_%s' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"secrets/$name"
done
# The containers run as other users than you; the folder keeps everybody else out.
chmod 644 secrets/*
echo "docker/secrets is ready"
