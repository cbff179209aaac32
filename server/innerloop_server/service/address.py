"""Where a server may listen, and with which credentials."""

from __future__ import annotations

import ipaddress
import ssl

import grpc

from innerloop_server.errors import InvalidField
from innerloop_server.settings import Settings, Tls


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_safe_address(settings: Settings) -> None:
    """Refuse to serve others than this machine in the clear or without tokens, unless told to.

    Raises:
        InvalidField: ``INSECURE_ADDRESS``; the message says what is missing and how to go on.
    """
    if is_loopback(settings.host) or settings.insecure:
        return
    given = {"TLS (tls)": settings.tls is not None, "tokens (tokens)": bool(settings.tokens)}
    missing = " and ".join(name for name, there in given.items() if not there)
    if missing:
        raise InvalidField(
            "host",
            f"{settings.host} is not loopback and {missing} are not set up; give both, serve 127.0.0.1, "
            "or allow it with insecure (--insecure)",
            reason="INSECURE_ADDRESS",
        )


def target(host: str, port: int) -> str:
    """``host:port``, brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials of PEM files, mutual TLS where a client CA is given.

    Raises:
        InvalidField: a file cannot be read, holds no PEM, or key and certificate do not belong together.
    """
    # grpc notices a bad file only when it binds, and then does not say which; the standard library does.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidField("tls.certificate", f"{tls.certificate} and {tls.key} cannot be used: {error}") from error
    client_ca = None
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
            client_ca = tls.client_ca.read_bytes()
        except (OSError, ssl.SSLError) as error:
            raise InvalidField("tls.client_ca", f"{tls.client_ca} cannot be used: {error}") from error
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )
