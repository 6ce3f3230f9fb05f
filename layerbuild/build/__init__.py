"""The build: a LayerPlan goes in, layers and an image in the store come out.

::

    loop         the steps of each needed stage, in order: cache hit, or run and seal
    making       a step that no record knows, from its start to its record, by the ``workers`` that it needs
    preview      the same walk, without running anything
    lookup       what a step will do: metadata, a hit, or a miss and why
    unneeded     which stages another machine's cache tells all about, so that nobody carries them out
    keys         the two cache keys of a step, and its inputs by name
    layers       from a step that has to run to a layer: workspace, changes, seal, capture, commit
    running      a RunStep, or a container's command, as a job for the sandbox
    placement    what a COPY writes, where, with which metadata
    copying      writing that, each file read once
    selecting    which files its sources name, with ``wildcard`` and ``archives``
    tree         where files are read from: a ``context`` folder or a stack of layers, behind one contract
    remote       what ADD takes from elsewhere: ``fetching`` (URLs) and ``repositories`` (git)
    origins      where a context comes from, until it is a folder
    accounts     names of users and groups, looked up in the image
    bases        what FROM names: images of the local store, or of a puller that the command line plugs in
    containers   a fresh layer on top of an image, for a command that is no step of a build

Terms: a *workspace* is being written; a *snapshot* is sealed and named by its chain ID; a *record* tells what a step
read and what it made, and is what a later build finds in the cache.
"""
