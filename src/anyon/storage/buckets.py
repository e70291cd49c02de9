"""A bucket made ready for checkpoints: there, versioned, tidied by itself, ours to write to.

What a bucket should be and how one differs from it is decided in pure functions over the
bucket's own description (the resource that Google's JSON API gives and takes).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyon.domain.errors import ConflictError, InvalidInputError
from anyon.domain.ids import new_id
from anyon.storage.drivers.gcs import TIMEOUT, GcsStore, connect
from anyon.storage.objects import StoreRefusedError, StoreUnavailableError

NONCURRENT_DAYS = 30
"""How long a version that was replaced or deleted is kept."""
PROBES = "anyon-probe"
"""The prefix of what is written, and deleted again, to find out whether that is allowed."""
_PERMISSIONS = ("create", "delete", "get", "list")
Rule = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a bucket should be. *project* is needed only to make one, where no default is set."""

    name: str
    location: str
    project: str | None = None
    noncurrent_days: int = NONCURRENT_DAYS

    @property
    def rule(self) -> Rule:
        """The lifecycle rule that ends noncurrent versions and never a live object."""
        return {
            "action": {"type": "Delete"},
            "condition": {"age": self.noncurrent_days, "isLive": False},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One setting that is not as wanted; ``can_change`` says whether ``make_ready`` sets it."""

    setting: str
    found: str
    wanted: str
    can_change: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What was found and done. ``differences`` are those that are left.

    ``warnings`` are things that are the operator's to decide, such as rules of others that delete
    live objects. ``is_emulator`` says that no real service was asked.
    """

    bucket: str
    done: Sequence[str]
    differences: Sequence[Difference]
    warnings: Sequence[str]
    is_emulator: bool


def differences(found: Mapping[str, Any] | None, wanted: Wanted) -> list[Difference]:
    """Return how a bucket (None: there is none) differs from what is wanted."""
    if found is None:
        return [Difference(setting="bucket", found="absent", wanted="there")]
    left = []
    location = str(found.get("location", ""))
    if location.casefold() != wanted.location.casefold():
        left.append(
            Difference(
                setting="location",
                found=location.lower() or "unknown",
                wanted=wanted.location.lower(),
                can_change=False,
            )
        )
    if not found.get("versioning", {}).get("enabled", False):
        left.append(Difference(setting="versioning", found="off", wanted="on"))
    if wanted.rule not in _rules(found):
        left.append(
            Difference(
                setting="lifecycle",
                found=f"{len(_rules(found))} other rules",
                wanted=f"noncurrent versions deleted after {wanted.noncurrent_days} days",
            )
        )
    access = found.get("iamConfiguration", {}).get("uniformBucketLevelAccess", {})
    if not access.get("enabled", False):
        left.append(Difference(setting="uniform access", found="off", wanted="on"))
    return left


def warnings(found: Mapping[str, Any]) -> list[str]:
    """Return what an operator should know of a bucket's own rules."""
    deadly = [rule for rule in _rules(found) if _deletes_live_objects(rule)]
    if not deadly:
        return []
    words = (
        f"{len(deadly)} lifecycle rules of this bucket delete live objects: checkpoints would lose"
        " their packs. Remove them, or restrict them to other prefixes."
    )
    return [words]


def _rules(found: Mapping[str, Any]) -> Sequence[Rule]:
    rules: Sequence[Rule] = found.get("lifecycle", {}).get("rule", [])
    return rules


def _deletes_live_objects(rule: Rule) -> bool:
    condition = rule.get("condition", {})
    return (
        rule.get("action", {}).get("type") == "Delete"
        and condition.get("isLive") is not False
        and not any(key.startswith("noncurrent") or "Noncurrent" in key for key in condition)
        and "numNewerVersions" not in condition
        and not condition.get("matchesPrefix")
    )


def check(wanted: Wanted, *, client: Any = None) -> Readiness:
    """Say how the bucket differs from what is wanted, changing nothing.

    Its permissions are asked for, not tried. StoreRefusedError, StoreUnavailableError.
    """
    client = client if client is not None else connect()
    with _translated(wanted.name):
        bucket = client.lookup_bucket(wanted.name, timeout=TIMEOUT, retry=None)
        if bucket is None:
            return _readiness(wanted, None, [])
        left = [*differences(bucket._properties, wanted), *_forbidden(bucket)]  # noqa: SLF001 - the resource
        return _readiness(wanted, bucket._properties, [], left)  # noqa: SLF001 - as above


def _forbidden(bucket: Any) -> list[Difference]:
    """Return what we may not do; an emulator has no permissions to ask for."""
    if is_emulator():
        return []
    names = [f"storage.objects.{word}" for word in _PERMISSIONS]
    allowed = bucket.test_iam_permissions(names, timeout=TIMEOUT, retry=None)
    return [
        Difference(setting=name, found="refused", wanted="allowed", can_change=False)
        for name in names
        if name not in allowed
    ]


def make_ready(wanted: Wanted, *, client: Any = None) -> Readiness:
    """Make the bucket, or bring it to what is wanted, and prove that objects can be kept in it.

    Repeats change nothing. Other lifecycle rules stay. ConflictError ``bucket_elsewhere`` where
    it lies in another location, before anything is changed; InvalidInputError ``bad_bucket``;
    StoreRefusedError; StoreUnavailableError.
    """
    client = client if client is not None else connect()
    with _translated(wanted.name):
        bucket = client.lookup_bucket(wanted.name, timeout=TIMEOUT, retry=None)
        done = [_create(client, wanted)] if bucket is None else _amend(bucket, wanted)
        # What the service now says, not what it was told.
        bucket = client.get_bucket(wanted.name, timeout=TIMEOUT, retry=None)
    done.append(_probe(client, wanted))
    return _readiness(wanted, bucket._properties, done)  # noqa: SLF001 - the resource


def _create(client: Any, wanted: Wanted) -> str:
    bucket = client.bucket(wanted.name)
    bucket.versioning_enabled = True
    bucket.lifecycle_rules = [wanted.rule]
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    client.create_bucket(
        bucket, location=wanted.location, project=wanted.project, timeout=TIMEOUT, retry=None
    )
    return f"made gs://{wanted.name} in {wanted.location}"


def _amend(bucket: Any, wanted: Wanted) -> list[str]:
    left = {one.setting: one for one in differences(bucket._properties, wanted)}  # noqa: SLF001 - the resource
    # An emulator puts every bucket into one place of its own.
    if "location" in left and not is_emulator():
        raise ConflictError(
            f"the bucket {wanted.name} is in {left['location'].found}, not in {wanted.location}",
            code="bucket_elsewhere",
            hint="A bucket cannot be moved: give its own --location, or another name.",
        )
    done = []
    if "versioning" in left:
        bucket.versioning_enabled = True
        done.append("switched versioning on")
    if "lifecycle" in left:
        bucket.lifecycle_rules = [*bucket.lifecycle_rules, wanted.rule]
        done.append(f"added the rule: {left['lifecycle'].wanted}")
    if "uniform access" in left:
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        done.append("switched uniform access on")
    if done:
        # Said again, for a service that takes a change for the whole (an emulator does).
        bucket.versioning_enabled = True
        # Only if nobody changed the bucket since it was read.
        bucket.patch(if_metageneration_match=bucket.metageneration, timeout=TIMEOUT, retry=None)
    return done


def _probe(client: Any, wanted: Wanted) -> str:
    """Write, read, list and delete one object."""
    store = GcsStore(wanted.name, PROBES, client=client)
    name, data = new_id(), os.urandom(1024)
    generation = store.put(name, data, if_generation="")
    try:
        if store.get(name).data != data:
            raise StoreUnavailableError("the bucket gave back something else than was written")
        if name not in {info.key for info in store.list(name)}:
            raise StoreUnavailableError("the bucket does not list what was written")
    finally:
        store.delete(name, if_generation=generation)
    return "wrote, read, listed and deleted an object"


def _readiness(
    wanted: Wanted,
    found: Mapping[str, Any] | None,
    done: Sequence[str],
    left: Sequence[Difference] | None = None,
) -> Readiness:
    return Readiness(
        bucket=wanted.name,
        done=tuple(done),
        differences=tuple(differences(found, wanted) if left is None else left),
        warnings=tuple(warnings(found)) if found is not None else (),
        is_emulator=is_emulator(),
    )


def is_emulator() -> bool:
    """Say whether Google's client talks to an emulator."""
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    from google.api_core import exceptions as errors  # noqa: PLC0415 - 1 s to import
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - as above
    from requests.exceptions import RequestException  # noqa: PLC0415 - as above

    try:
        yield
    except errors.Conflict as error:
        raise ConflictError(
            f"the bucket {name} cannot be made: {error.message}",
            code="bucket_taken",
            hint="Names of buckets are shared by all of Google's customers: choose another.",
        ) from error
    except errors.PreconditionFailed as error:
        raise ConflictError(
            f"the bucket {name} was changed meanwhile",
            code="bucket_changed",
            hint="Repeat the command.",
        ) from error
    except (errors.Forbidden, errors.Unauthorized) as error:
        raise StoreRefusedError(
            f"Google Cloud Storage refuses the bucket {name}: {error.message}",
            hint="Whoever runs this needs the role Storage Admin; or the name is another's.",
        ) from error
    except (errors.BadRequest, ValueError) as error:
        raise InvalidInputError(
            f"Google Cloud Storage does not take the bucket {name}: {error}",
            code="bad_bucket",
            hint="Check the name, the location and --project.",
        ) from error
    except (errors.GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise StoreUnavailableError(
            f"Google Cloud Storage failed for the bucket {name}: {error}"
        ) from error
