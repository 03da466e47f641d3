"""Names of MQTT topics. Each holds the federation and the component it belongs to, so that a broker's rules can pin both."""


def orders(federation: str, node_id: str) -> str:
    """What a node reads: requests for it alone."""
    return f"fb/{federation}/n/{node_id}/in"


def broadcast(federation: str) -> str:
    """What every node reads."""
    return f"fb/{federation}/all"


def replies(federation: str, researcher_id: str, node_id: str) -> str:
    """Where a node answers one researcher; `+` as node for what the researcher reads."""
    return f"fb/{federation}/r/{researcher_id}/from/{node_id}"


def presence(federation: str, component_id: str) -> str:
    """Where a component's presence is retained; `+` for all."""
    return f"fb/{federation}/s/{component_id}"


def probe(federation: str, component_id: str) -> str:
    """Where the answer to a `BootProbe` goes."""
    return f"fb/{federation}/p/{component_id}"
