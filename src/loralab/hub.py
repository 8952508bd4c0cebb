"""Whether a hub answers, told in three seconds: its client's own retries take the better part of a minute. A leaf."""

import contextlib
import socket
import threading
import urllib.parse
import urllib.request

__all__ = ["reachable"]

_PROBE_SECONDS = 3.0


def reachable(endpoint: str) -> bool:
    """Whether a TCP connection to the endpoint, or to the proxy that leads to it, opens within 3 seconds."""
    url = urllib.parse.urlsplit(endpoint)
    proxies = urllib.request.getproxies()
    if not urllib.request.proxy_bypass(url.hostname or ""):
        proxy = next((proxies[scheme] for scheme in (url.scheme, "all") if scheme in proxies), None)
        if proxy is not None:
            url = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = url.port or {"https": 443, "http": 80}.get(url.scheme, 1080)  # 1080: socks
    opened = threading.Event()

    def knock() -> None:
        with contextlib.suppress(OSError), socket.create_connection((url.hostname, port), timeout=_PROBE_SECONDS):
            opened.set()

    # Looking up a name knows no timeout of its own, hence the thread, which may outlive this call.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return opened.is_set()
