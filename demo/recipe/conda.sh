# This is a stand-in for conda's own conda.sh. The demo's image has no conda: its environments are Python virtual
# environments where conda would have them, and this file activates them by the same command:
#
#     . /opt/conda/etc/profile.d/conda.sh && conda activate NAME
#
# It knows activate, deactivate, info --base and env list, in any POSIX shell.

_conda_base=/opt/conda

_conda_deactivate() {
    if [ -n "${CONDA_PREFIX:-}" ]; then
        # Take the environment's bin off the PATH again, wherever it stands there.
        PATH=$(printf '%s' ":$PATH:" | sed "s|:$CONDA_PREFIX/bin:|:|g; s|^:||; s|:\$||")
        export PATH
    fi
    unset CONDA_PREFIX CONDA_DEFAULT_ENV CONDA_SHLVL
}

_conda_activate() {
    case ${1:-} in
        '') echo 'conda activate: which environment? (this is a stand-in: there is no base)' >&2; return 1 ;;
        /*) set -- "$1" "$1" ;;
        *) set -- "$1" "$_conda_base/envs/$1" ;;
    esac
    if [ ! -x "$2/bin/python" ]; then
        printf '\nEnvironmentNameNotFound: Could not find conda environment: %s\n' "$1" >&2
        echo 'You can list all discoverable environments with `conda info --envs`.' >&2
        return 1
    fi
    _conda_deactivate
    export PATH="$2/bin:$PATH" CONDA_PREFIX="$2" CONDA_DEFAULT_ENV="$1" CONDA_SHLVL=1
}

conda() {
    case "${1:-} ${2:-}" in
        'activate '*) shift; _conda_activate "$@" ;;
        'deactivate '*) _conda_deactivate ;;
        'info --base') echo "$_conda_base" ;;
        'info --envs' | 'env list') ls -d "$_conda_base"/envs/* ;;
        '--version '*) echo "conda 0 (the stand-in of snowyspawner's demo)" ;;
        *) echo "conda: this stand-in knows activate, deactivate, info and env list only" >&2; return 2 ;;
    esac
}
