"""The host contract on the memory host."""

from typing import Any

from durable_core.model.codec import Codec
from durable_core.model.durable import Durable
from durable_core.testing.host_contract import HostContract, function_of
from durable_core.testing.memory_host import MemoryHost


class TestMemoryHost(HostContract):
    def host(self, body: Durable[..., Any], *args: Any) -> MemoryHost:
        codec = Codec()
        return MemoryHost(function_of(body, codec), codec, args)
