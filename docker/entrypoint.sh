#!/bin/sh
# Puts the secrets, which Docker mounts as files, into the two URLs that the settings read, and runs the command.
set -eu
if [ -r /run/secrets/redis_password ]; then
    export NCAGATE_REDIS_URL="redis://:$(cat /run/secrets/redis_password)@${REDIS_HOST:-redis}:6379/0"
fi
if [ -r /run/secrets/postgres_password ]; then
    export NCAGATE_DATABASE_URL="postgresql+psycopg://ncagate:$(cat /run/secrets/postgres_password)@${POSTGRES_HOST:-postgres}:5432/ncagate"
fi
exec "$@"
