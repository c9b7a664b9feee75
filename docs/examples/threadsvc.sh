#!/bin/sh
# Runs a command of threadsvc with the settings and as the user of the service. Install as /usr/local/bin/threadsvc.
# Example: sudo threadsvc list_api_keys
set -eu
if [ "$(id -un)" != threadsvc ]; then
    exec runuser -u threadsvc -- "$0" "$@"
fi
umask 0077
set -a
. /etc/threadsvc/environment
set +a
cd /srv/threadsvc
exec .venv/bin/python manage.py "$@"
