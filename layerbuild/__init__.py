"""layerbuild: from a Dockerfile to OCI image layers, without a daemon, each layer in plain sight.

The way of the data, and the chapter that knows each part of it::

    recipe text ─▶ Statement ─▶ Instruction ─▶ Step        recipe/
                                                │
                              StagePlan, LayerPlan          steps.py
                                                │
         Workspace ─ overlay ─▶ RUN in the sandbox          store/ isolate/
             │ upperdir, sealed
             ▼
         changes ─▶ tar ─▶ DiffID ─▶ BlobDigest, index      layer/
             │
             ▼
         Image.with_step ─▶ Snapshot(ChainID)               image/ store/
             │
             ▼
         exporters, views                                   export/ views/

``docs/design.md`` tells the whole of it; ``tests/test_architecture.py`` holds the code to the import table there.
"""

__version__ = "0.1.0"
