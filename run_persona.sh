#!/usr/bin/env bash
#SBATCH --job-name=persona
#SBATCH --partition=dgx
#SBATCH --gres=gpu:1
#SBATCH --mem=32G
#SBATCH --cpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --qos=normal
#SBATCH --output=persona-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#
# The whole pipeline: data set, fine-tuning, loss extraction, evaluation, figures. Finished stages are skipped.
#
#   bash run_persona.sh                                       on this machine; without a GPU on the embedded model and corpus
#   sbatch run_persona.sh                                     under SLURM; the lines above are defaults, e.g. sbatch --partition=gpu --gres=gpu:a100:1 run_persona.sh
#   sbatch --gres=gpu:4 run_persona.sh                        training on four GPUs of one node by accelerate launch; with --nodes=2 on eight of two
#   bash run_persona.sh --corpus DIR --max-steps 400          your own text, a smaller budget
#   bash run_persona.sh --reference                           also evaluate as the reference system did, on rows seen in training
#
# --persona, --corpus, --model, --run, --seed and --force go to every stage, all other flags to fine_tune.py. Stopped (Ctrl-C, SIGTERM,
# time limit, power cut), it goes on from the last complete checkpoint when started again; under SLURM it requeues itself before the time limit.
#
# PERSONA_PROCESSES    training processes a node; default: the node's GPUs that SLURM gave, else 1
# PERSONA_ACCELERATE   configuration of accelerate launch; default configs/ddp.yaml (for bases too large for one GPU: configs/fsdp2_qlora.yaml)
set -uo pipefail

if [ -n "${SLURM_JOB_ID:-}" ]; then # SLURM runs a copy of this file: ask for the original
    original=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\([^ ]*\).*/\1/p')
    here=$(dirname "${original:-${SLURM_SUBMIT_DIR:-.}/run_persona.sh}")
else
    here=$(dirname "${BASH_SOURCE[0]}")
fi
came_from=$PWD
self=$(realpath "${BASH_SOURCE[0]}")
cd "$here" || exit 2

shared=() training=() reference=
while [ $# -gt 0 ]; do
    case $1 in
        --corpus=* | --model=* | --persona=* | --run=* | --seed=*) # --flag=value is --flag value
            set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --corpus) # a folder is meant from where the user stands
            [ $# -ge 2 ] || { echo "error: --corpus needs a value" >&2; exit 2; }
            case $2 in embedded | canon | /*) shared+=("$1" "$2") ;; *) shared+=("$1" "$came_from/$2") ;; esac
            shift 2 ;;
        --model) # so is a folder with a model in it
            [ $# -ge 2 ] || { echo "error: --model needs a value" >&2; exit 2; }
            if [ -d "$came_from/$2" ]; then shared+=("$1" "$came_from/$2"); else shared+=("$1" "$2"); fi
            shift 2 ;;
        --persona | --run | --seed)
            [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
            shared+=("$1" "$2"); shift 2 ;;
        --force) # a requeued job has the same command line: it must not throw its own checkpoints away
            [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || shared+=("$1")
            shift ;;
        --reference) reference=yes; shift ;;
        -h | --help) sed -n '/^# The whole/,/^set/p' "$self" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
        *) training+=("$1"); shift ;;
    esac
done

. ./setup_environment.sh
setup_environment requirements_training.txt

export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240} # seconds that torchrun gives its processes after TERM to save; by itself 30
nodes=${SLURM_NNODES:-1}
processes=$((nodes * ${PERSONA_PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}))

child= warned= cancelled= over_nodes=
forward() { # Ctrl-C, or SLURM's warning before the time limit: let the stage save and end, then leave or requeue
    warned=yes
    [ -n "${SLURM_JOB_ID:-}" ] && case $(scontrol show job "$SLURM_JOB_ID" 2>/dev/null) in
        *JobState=COMPLETING* | *JobState=CANCELLED*) cancelled=yes ;; # scancel: to requeue it would bring it back
    esac
    if [ -n "$over_nodes" ]; then # srun itself would answer TERM with KILL for its tasks
        scancel --signal=TERM "$SLURM_JOB_ID"
    elif [ -n "$child" ]; then
        kill -TERM "$child" 2>/dev/null
    fi
}
trap forward TERM INT

launch() { # launch SCRIPT ARGUMENT...: in one process, or fine_tune.py in several; over nodes, srun starts one launcher on each
    local accelerate=(-m accelerate.commands.accelerate_cli launch) many
    many=(--config_file "${PERSONA_ACCELERATE:-configs/ddp.yaml}" --num_processes "$processes" --num_machines "$nodes")
    [ -n "${SLURM_JOB_ID:-}" ] && many+=(--main_process_port $((20000 + SLURM_JOB_ID % 20000))) # jobs may share a node
    if [ "$1" != fine_tune.py ] || [ "$processes" -eq 1 ]; then
        exec "$python" "$@"
    elif [ "$nodes" -eq 1 ]; then
        exec "$python" "${accelerate[@]}" "${many[@]}" "$@"
    else
        exec srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
            bash -c 'exec "$0" "${@:1:3}" --machine_rank "$SLURM_NODEID" --main_process_ip "$SLURM_LAUNCH_NODE_IPADDR" "${@:4}"' \
            "$python" "${accelerate[@]}" "${many[@]}" "$@"
    fi
}

stage() { # stage SCRIPT ARGUMENT...
    echo
    echo "=== $1"
    over_nodes=$([ "$1" = fine_tune.py ] && [ "$nodes" -gt 1 ] && echo yes)
    launch "$@" &
    child=$!
    wait "$child"; local code=$?
    while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done # wait returns early when a signal comes in
    child=
    [ $code -eq 0 ] && return
    if [ -n "${SLURM_JOB_ID:-}" ] && [ -z "$cancelled" ] && { [ $code -eq 75 ] || [ -n "$warned" ]; }; then
        echo "requeueing job $SLURM_JOB_ID"
        scontrol requeue "$SLURM_JOB_ID"
        exit 0
    fi
    echo "run_persona.sh: stage $1 failed with exit code $code" >&2
    exit $code
}

if [ -z "${RESUME_CHECKPOINT:-}" ]; then
    RESUME_CHECKPOINT=$("$python" -m persona.checkpoints last "${shared[@]}") || exit $?
fi
export RESUME_CHECKPOINT
stage generate_dataset.py "${shared[@]}"
stage fine_tune.py "${shared[@]}" "${training[@]}"
stage extract_loss.py "${shared[@]}"
stage evaluation.py "${shared[@]}"
[ -n "$reference" ] && stage evaluation.py --protocol reference "${shared[@]}"
stage visual.py "${shared[@]}"
"$python" -m persona.checkpoints clean "${shared[@]}" || exit $?
echo
echo "talk to him:  $python test.py ${shared[*]}"
echo "on a page:    $python -m pip install -q -r requirements.txt && $python app.py"
