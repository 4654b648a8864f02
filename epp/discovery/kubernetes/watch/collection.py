"""What the path of a collection says."""

from typing import NamedTuple

__all__ = ["Collection"]


class Collection(NamedTuple):
    """The objects of one kind, in one namespace or (empty) everywhere. ``group`` is empty for the
    core group; ``resource`` is the plural that stands in paths and in RBAC rules."""

    group: str
    version: str
    namespace: str
    resource: str

    @classmethod
    def of(cls, path: str) -> "Collection":
        """Take a path like ``/api/v1/namespaces/x/pods`` apart. Raises ValueError."""
        match path.strip("/").split("/"):
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                rest = []
        match rest:
            case ["namespaces", namespace, resource]:
                return cls(group, version, namespace, resource)
            case [resource]:
                return cls(group, version, "", resource)
        raise ValueError(f"{path} is not the path of a collection")

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{name} in namespace {self.namespace}" if self.namespace else name
