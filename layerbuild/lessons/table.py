"""All lessons, in the order in which they are best taken."""

from __future__ import annotations

from layerbuild.lessons import (
    cache_order,
    chain_ids,
    container_layer,
    copy_on_write,
    metadata,
    opaque_folder,
    pruning,
    whiteout,
)

LESSONS = {
    module.LESSON.name: module.LESSON
    for module in (
        copy_on_write,
        whiteout,
        opaque_folder,
        metadata,
        cache_order,
        chain_ids,
        container_layer,
        pruning,
    )
}
