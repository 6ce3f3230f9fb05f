"""How a command gets the stack of layers as its root, and how what it changed gets into the diff folder.

::

    driver             the command's root is                        its changes are
    overlay            the kernel's overlay mount                   in the upperdir, by themselves
    btrfs              a snapshot of the stack's subvolume          found by comparing, inodes first
    fuse-overlayfs     a FUSE mount of that program                 in the upperdir, with marks of its own
    copy               a copy of the whole stack                    found by comparing

In: a workspace on its stack. Out: the root of a job, and, once the job has ended, a diff folder that holds what overlay
would have left there; sealing and capture then know no difference, and the layers have the same bytes. ``table`` has
the members, in the order in which they are tried.
"""
