"""What works in a recipe, but should not be written so: BuildKit's build checks.

::

    Recipe ─ facts ─▶ Facts ─ rules ─▶ Finding ─ control ─▶ RecipeWarning ─▶ Report

What enters: a recipe, and what a build of it would know (build arguments, platform, the rules of the ignore file, and
a function that knows the configurations of bases). What leaves: a Report. Nothing is read from disk, nothing is built.

Terms: the *facts* are what planning the recipe brings to light, as far as it gets; a *rule* is a name, a description
and a function from facts to *findings*; the *control* says which rules are in force: ``# check=`` at the head of the
recipe or above one instruction, or the build argument ``BUILDKIT_DOCKERFILE_CHECK``. A rule that needs to know a base
which is not at hand finds nothing.

Source: the rules, their names, texts and pages are those of https://docs.docker.com/reference/build-checks/.
"""
