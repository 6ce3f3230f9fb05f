"""Where RUN's processes live: namespaces, overlay mounts, and the helper that starts them.

What enters: plain values — the folders of a stack, a process (argv, environment, working directory, user), mounts. What
leaves: the process's output as it comes, and how it ended. What it wrote is in the upper folder; this chapter does not
look at it. No recipe, no image and no store is known here.

::

    build        in a mount namespace of its own (namespaces.py), before it starts a thread; hands out jobs (sandbox.py)
    └── helper       pid 1 of a pid namespace: when it dies, the kernel ends all below it (helper.py)
        ├── pretender    for users: answers calls that the kernel would refuse (pretender.py), for one job after the
        │                other (pretenders.py)
        └── command      one per job, forked ahead of it (spares.py), in fresh mount, pid, ipc, uts and cgroup
                         namespaces: mounts (rootfs.py, mounts.py, standard.py), changes its root, drops its rights
                         (capabilities.py, seccomp.py, rlimits.py), executes (container.py, executable.py); or becomes
                         an OCI runtime (oci.py)

The build makes the control groups in which commands keep to their limits (cgroups.py).

Terms (mount_namespaces(7), the kernel's filesystems/overlayfs.rst): a *lower* folder is only read, the *upper* takes
what is written, *work* is overlay's own scratch folder, *merged* is where the stack is seen as one tree. The *init*
folder is an additional lower that holds the mount points which the image lacks, so that they need not be made in the
upper; Docker has one under the same name.
"""
