"""Rows whose expectation is not ours, and why. A row that stands here and passes is an error.

Facts are quoted by their ids in the semantics that the corpus comes with; a row is named by family and name, or by
family and a digest of what it says. What holds for all rows of one kind is said by a rule beside their test.
"""

from __future__ import annotations

FRACTIONS = (
    "D9, D10: size and time decide there, content decides here. A file that was written anew with what it held is no "
    "change, and one with other content is, whatever its time says (docs/differences.md)"
)

REPLACED = "C15: a folder does not replace what is none, nor a file a folder (fsutil); the classic builder replaces"

KNOWN: dict[str, str] = {
    # -- builds: what the classic builder, or docker as buildah compares with it, does otherwise than BuildKit ---------
    "moby/classic_build_cases#TestBuildJSONEmptyRun-9b98": (
        "the classic builder runs nothing; BuildKit says `arguments are required`, and so is it here"
    ),
    "moby/classic_build_cases#TestBuildOnBuildOutput-62b8": (
        "words of the classic builder's progress; here each trigger is a step that says where it comes from"
    ),
    "moby/classic_build_cases#TestBuildMultiStageCopyFromErrors-e760": (
        "S2: `circular dependency detected on stage`, as BuildKit says; the classic builder has other words"
    ),
    "buildah/conformance/cases#copy-multiple-missing-file-with-nomatch-on-glob": (
        "C13, Z2: a pattern that matches nothing copies nothing"
    ),
    "buildah/conformance/cases#copy-integration1": (
        "I4: what is re-included below an ignored folder is in the context. The classic client does not look into such "
        "a folder unless an exception begins with its name, and `!*/sub1*` does not"
    ),
    "buildah/conformance/cases#replace-symlink-with-directory": REPLACED,
    "buildah/conformance/cases#replace-directory-with-symlink": REPLACED,
    # -- builds: rows that lost something ------------------------------------------------------------------------------
    "buildkit/integration/cases#testPullScratch-2279": (
        "the file of the last step is `foo-contents` in the row, and should be `foo0`"
    ),
    # -- layers -------------------------------------------------------------------------------------------------------
    "continuity/diff_changes#TestUpdateWithSameTime": FRACTIONS,
}
