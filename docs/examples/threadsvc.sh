#!/bin/sh
# threadsvc's commands with the settings of the service, as /usr/local/bin/threadsvc: sudo threadsvc list_api_keys
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
