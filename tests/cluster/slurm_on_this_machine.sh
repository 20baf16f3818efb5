#!/usr/bin/env bash
# A real SLURM on one machine: munged, slurmctld and a slurmd a node, without systemd. Root, on Debian or Ubuntu.
#
#   slurm_on_this_machine.sh start FOLDER NODES   installs what is missing, starts n1 ... nN; then export SLURM_CONF=FOLDER/slurm.conf
#   slurm_on_this_machine.sh kill FOLDER NODE     the node vanishes: every process of it, without a word to anybody
#   slurm_on_this_machine.sh revive FOLDER NODE
#   slurm_on_this_machine.sh stop FOLDER
#
# Each node has a network namespace, an address and a host name of its own where the kernel allows it (`netns` below);
# else all nodes share this machine's, on different ports.
set -euo pipefail
action=$1 folder=$2
bridge=ccnslurm0 net=10.78.0 mark="# ccn test cluster"
export SLURM_CONF=$folder/slurm.conf

run_in() {  # NODE COMMAND...: on a node, with its network and host name
    if [[ -e /run/netns/ccn-$1 ]]; then
        # `ip netns exec` would hide /sys/fs/cgroup, which slurmd looks for
        # shellcheck disable=SC2016
        nsenter --net="/run/netns/ccn-$1" unshare --uts bash -c 'hostname "$1"; exec "${@:2}"' node "$@"
    else
        "${@:2}"
    fi
}

poll() {  # SECONDS COMMAND...: until it succeeds
    local deadline=$((SECONDS + $1))
    until "${@:2}" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { echo "not within $1 s: ${*:2}" >&2; return 1; }
        sleep 0.2
    done
}

alive() {  # PID; a zombie that nobody reaps counts as dead
    [[ -r /proc/$1/status ]] && ! grep -q '^State:[[:space:]]*[ZX]' "/proc/$1/status"
}

dead() { ! alive "$1"; }

descendants() {  # PID: it and all that it has started
    local child
    echo "$1"
    for child in $(ps -o pid= --ppid "$1"); do descendants "$child"; done
}

node_processes() {  # NODE: its slurmd and slurmstepds, told by the log that they write, and the tasks of these
    local pid
    for pid in $(pgrep -x 'slurm(step)?d'); do
        if find "/proc/$pid/fd" -lname "$folder/slurmd.$1.log" 2>/dev/null | grep -q .; then descendants "$pid"; fi
    done
}

vanish() {  # NODE
    node_processes "$1" | xargs -r kill -KILL
}

install_packages() {
    local package missing=()
    for package in slurmctld slurmd slurm-client munge iproute2 procps; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    # Debian starts what it installs unless this file says no.
    local policy=/usr/sbin/policy-rc.d ours=
    [[ -e $policy ]] || { ours=yes; printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; }
    local get=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install "${missing[@]}")
    "${get[@]}" >"$folder/apt.log" 2>&1 || { apt-get -q update && "${get[@]}"; } >"$folder/apt.log" 2>&1 || {
        echo "no SLURM here: cannot install ${missing[*]}: $(tail -n 1 "$folder/apt.log")" >&2
        exit 3
    }
    [[ -z $ours ]] || rm $policy
}

munge_answers() { munge -n </dev/null | unmunge; }

start_munge() {
    munge_answers >/dev/null 2>&1 && return
    [[ -s /etc/munge/munge.key ]] || { head -c 128 /dev/urandom >/etc/munge/munge.key; }
    chown munge:munge /etc/munge/munge.key
    chmod 400 /etc/munge/munge.key
    install -d -o munge -g munge -m 755 /run/munge
    runuser -u munge -- /usr/sbin/munged --force  # even if a socket of a dead one is there
    poll 10 munge_answers
    cp /run/munge/munged.pid "$folder/munged.pid"
}

namespaces_work() {
    ip netns add ccn-probe && ip link add ccnp0 type veth peer name ccnp1 && ip link del ccnp0 &&
        ip link add ccnp2 type bridge && ip link del ccnp2 && ip netns del ccn-probe
} >/dev/null 2>&1

make_nodes() {  # NODES; prints their lines of slurm.conf
    local i address port=16818
    if namespaces_work; then
        ip link add "$bridge" type bridge
        ip addr add "$net.1/24" dev "$bridge"
        ip link set "$bridge" up
        for i in $(seq "$1"); do
            ip netns add "ccn-n$i"
            ip link add "ccn-v$i" type veth peer name eth0 netns "ccn-n$i"
            ip link set "ccn-v$i" master "$bridge" up
            # No default route: look-ups of other names would wait for a name server that cannot be reached.
            ip -n "ccn-n$i" addr add "$net.$((10 + i))/24" dev eth0
            ip -n "ccn-n$i" link set lo up
            ip -n "ccn-n$i" link set eth0 up
        done
    fi
    for i in $(seq "$1"); do
        address=127.0.0.1
        if [[ -e /run/netns/ccn-n$i ]]; then address=$net.$((10 + i)); else port=$((16900 + i)); fi
        echo "$address n$i $mark" >>/etc/hosts
        echo "NodeName=n$i NodeHostname=$(run_in "n$i" hostname -s) NodeAddr=$address Port=$port CPUs=1 RealMemory=4000"
    done
}

write_config() {  # NODES
    local controller=127.0.0.1 nodes
    nodes=$(make_nodes "$1")
    [[ ! -e /run/netns/ccn-n1 ]] || controller=$net.1
    cat >"$SLURM_CONF" <<CONF
ClusterName=ccntest
SlurmctldHost=$(hostname -s)($controller)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5                  # seconds before a requeued job may start again; 120 unless told, 5 at least
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
FirstJobId=$((1000 + EPOCHSECONDS % 8000))
MinJobAge=3600
ReturnToService=2
SlurmdTimeout=10                        # a node that does not answer is down after this
KillWait=180                            # a checkpoint takes a second, and minutes on a busy machine
InactiveLimit=0
$nodes
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    # slurmd 22.05 loads a cgroup plugin even if nothing uses it; its default wants a mounted cgroup, v1 does not.
    echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf"
}

start_node() {  # NODE
    run_in "$1" slurmd -N "$1" </dev/null
}

nodes_idle() { [[ $(sinfo -h -N -o %T | grep -cx idle) == "$1" ]]; }

start() {  # NODES
    stop
    mkdir -p "$folder/state"
    install_packages
    start_munge
    for node in $(seq -f 'n%.0f' "$1"); do mkdir -p "$folder/spool.$node"; done
    write_config "$1"
    slurmctld -c </dev/null
    for node in $(seq -f 'n%.0f' "$1"); do start_node "$node"; done
    poll 60 nodes_idle "$1" || { tail -n 20 "$folder"/*.log >&2; exit 1; }
    sinfo -h -o 'SLURM has %D nodes, %T: %N'
}

end_process() {  # PIDFILE NAME
    local pid
    [[ -s $1 ]] || return 0
    pid=$(<"$1")
    if alive "$pid" && [[ $(<"/proc/$pid/comm") == "$2" ]]; then
        kill "$pid"
        poll 10 dead "$pid" || kill -KILL "$pid"
    fi
    rm -f "$1"
}

no_jobs() { [[ -z $(squeue -h) ]]; }

stop() {
    if [[ -s $folder/slurmctld.pid ]] && alive "$(<"$folder/slurmctld.pid")"; then
        squeue -h -o %A | xargs -r scancel
        poll 20 no_jobs || true
    fi
    local log namespace link
    for log in "$folder"/slurmd.*.log; do vanish "$(basename "$log" | cut -d. -f2)"; done
    end_process "$folder/slurmctld.pid" slurmctld
    end_process "$folder/munged.pid" munged
    for namespace in $(ip netns list 2>/dev/null | grep -o '^ccn-n[0-9]*'); do
        ip netns pids "$namespace" | xargs -r kill -KILL  # of jobs that outlived their daemons
        ip netns del "$namespace"
    done
    for link in "$bridge" $(ip -o link 2>/dev/null | grep -o 'ccn-v[0-9]*'); do
        ip link del "$link" 2>/dev/null || true
    done
    if grep -q "$mark\$" /etc/hosts; then
        grep -v "$mark\$" /etc/hosts >"$folder/hosts"
        cat "$folder/hosts" >/etc/hosts  # not a rename: containers mount this file
    fi
}

case $action in
    start) start "$3" ;;
    kill) vanish "$3" ;;
    revive) start_node "$3" ;;
    stop) stop ;;
esac
