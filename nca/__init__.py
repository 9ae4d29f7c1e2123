"""Arrays to Prediction: the M3D-NCA model, its engines, the ensemble and its quality metric."""

import os

# OpenMP's threads must sleep while they wait, not spin: an automaton's steps are short, and where anything else
# wants a core, spinning threads wait for each other's time slices (10 members took 42 s instead of 4).
# It is read once, when torch loads OpenMP.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
