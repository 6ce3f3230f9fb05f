"""The rules."""

from __future__ import annotations

from layerbuild.recipe.lint import bases, instructions, spelling, stages
from layerbuild.recipe.lint.rule import Rule

RULES = (
    Rule("StageNameCasing", "Stage names should be lowercase", "stage-name-casing", stages.name_casing),
    Rule(
        "FromAsCasing",
        "The 'as' keyword should match the case of the 'from' keyword",
        "from-as-casing",
        stages.as_casing,
    ),
    Rule(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        "no-empty-continuation",
        spelling.empty_continuation,
    ),
    Rule(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        "consistent-instruction-casing",
        spelling.instruction_casing,
    ),
    Rule("DuplicateStageName", "Stage names should be unique", "duplicate-stage-name", stages.duplicate_name),
    Rule(
        "ReservedStageName",
        "Reserved words should not be used as stage names",
        "reserved-stage-name",
        stages.reserved_name,
    ),
    Rule(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "json-args-recommended",
        instructions.shell_form,
    ),
    Rule(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "maintainer-deprecated",
        spelling.maintainer,
    ),
    Rule(
        "UndefinedArgInFrom",
        "FROM command must use declared ARGs",
        "undefined-arg-in-from",
        bases.undefined_arg,
    ),
    Rule(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
        "base image changes",
        "workdir-relative-path",
        instructions.relative_workdir,
    ),
    Rule(
        "UndefinedVar",
        "Variables should be defined before their use",
        "undefined-var",
        instructions.undefined_variable,
    ),
    Rule(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        "multiple-instructions-disallowed",
        instructions.repeated,
    ),
    Rule(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        "legacy-key-value-format",
        spelling.old_pair,
    ),
    Rule(
        "InvalidBaseImagePlatform",
        "Base image platform does not match expected target platform",
        "",
        bases.image_platform,
    ),
    Rule(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        "redundant-target-platform",
        bases.redundant_platform,
    ),
    Rule(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        "secrets-used-in-arg-or-env",
        instructions.secret_name,
    ),
    Rule(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        "invalid-default-arg-in-from",
        bases.invalid_default,
    ),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        "from-platform-flag-const-disallowed",
        bases.constant_platform,
    ),
    Rule(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        "copy-ignored-file",
        instructions.ignored_source,
    ),
    Rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is "
        "not intended to be a description comment, add an empty line or comment between the instruction and the "
        "comment.",
        "invalid-definition-description",
        stages.description,
        experimental=True,
    ),
    Rule(
        "ExposeProtoCasing",
        "Protocol in EXPOSE instruction should be lowercase",
        "expose-proto-casing",
        instructions.protocol_casing,
    ),
    Rule(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
        "future release",
        "expose-invalid-format",
        instructions.mapped_port,
    ),
)
