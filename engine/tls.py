"""TLS for the client: which certificates it trusts, the check before a run, and the bytes of one connection.

A channel has the `send` and `recv` of a socket that never waits. It reads as much as the kernel has in one call, where
ssl.SSLSocket makes two calls for each record. The handshake happens in the first sends, as its bytes come in.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from dataclasses import dataclass
from functools import cache
from time import perf_counter

from engine.words import Problem

READ_BYTES = 65536
WRITE_BYTES = 65536  # of a body are encrypted at a time
EXPIRED, NOT_YET, SELF_SIGNED, OTHER_HOST, OTHER_ADDRESS = 10, 9, 18, 62, 64  # OpenSSL's X509_V_ERR_...


@dataclass(frozen=True)
class Tls:
    """How a server's certificate is checked."""

    trusted: str = ""  # a file with what is trusted; empty: the CAs of this system
    is_own: bool = False  # that file is the server's own certificate, whatever names are in it
    is_checked: bool = True


@cache
def context_for(tls: Tls) -> ssl.SSLContext:
    """Raises Problem where the trusted file cannot be read."""
    context = ssl.create_default_context()
    if not tls.is_checked:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    if tls.is_own:
        context.check_hostname = False
    if tls.trusted:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # this very one, if it is no CA's
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 asks for fields that such certificates lack
        try:
            context.load_verify_locations(tls.trusted)
        except OSError as error:
            raise Problem(f"cannot read a certificate from {tls.trusted}: {tls_reason(error)}") from None
    return context


def tls_reason(error: OSError) -> str:
    """OpenSSL's word for it, or the system's."""
    said = getattr(error, "reason", None) or error.strerror or f"{error}"
    return said.replace("_", " ").lower() if said.isupper() else said


def check_pair(certificate: str, key: str) -> None:
    """Raises Problem where a server could not serve with these files."""
    try:
        with open(certificate, "rb"), open(key, "rb"):
            pass
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: b"")
    except ssl.SSLError:
        raise Problem(
            f"{certificate} and {key} are not a certificate and its private key, without a pass phrase"
        ) from None
    except OSError as error:
        raise Problem(f"cannot read {error.filename}: {error.strerror}") from None


# ---------------------------------------------------------------- before a run


def secured(sock: socket.socket, tls: Tls, host: str) -> ssl.SSLSocket:
    """A connected socket after its handshake. Raises Problem where the certificate is not to be trusted."""
    where = f"{host}:{sock.getpeername()[1]}"
    try:
        return context_for(tls).wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise Problem(f"the certificate of {where} {why_not_trusted(error, tls, host)}") from None
    except (OSError, ValueError) as error:
        said = tls_reason(error) if isinstance(error, OSError) else f"{error}"
        plain = "; it seems to speak plain http: write http://" * (said in ("wrong version number", "http request"))
        raise Problem(f"no TLS connection to {where}: {said}{plain}") from None


def why_not_trusted(error: ssl.SSLCertVerificationError, tls: Tls, host: str) -> str:
    """What is wrong with a certificate, and what to do."""
    anyway = "or add --insecure to measure all the same"
    code = error.verify_code
    if code == EXPIRED:
        return f"has expired: renew it, {anyway}"
    if code == NOT_YET:
        return f"is not valid yet: look at the clocks, {anyway}"
    if code in (OTHER_HOST, OTHER_ADDRESS):
        return f"is not for {host!r}: ask for a name that is in it, {anyway}"
    if tls.is_own:
        return f"is not the one of --cert ({error.verify_message})"
    if code == SELF_SIGNED:
        return f"is self-signed: trust it with --cacert FILE, {anyway}"
    return f"is not trusted ({error.verify_message}): name the CA's file with --cacert FILE, {anyway}"


# ---------------------------------------------------------------- one connection


class Channel:
    """TLS over a socket that never waits. send and recv raise OSError: EAGAIN for later, EPROTO where TLS fails."""

    def __init__(self, sock: socket.SocketType, tls: Tls, host: str) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context_for(tls).wrap_bio(self.incoming, self.outgoing, server_hostname=host)
        self.is_open = False  # the handshake is over
        self.connected_s = 0.0  # when the kernel had connected, and took the handshake's first bytes
        self.encrypted = 0  # bytes given to send() of which the kernel has not taken all
        self.unsent = b""  # what it has not taken

    def send(self, data: bytes) -> int:
        """How many of these bytes the kernel has taken, encrypted. What it has not taken must be given again."""
        if not self.is_open:
            self._shake_hands()
        taken = 0
        while taken < len(data):
            if not self.unsent:
                self.encrypted = self._write(data[taken : taken + WRITE_BYTES])
                self.unsent = self.outgoing.read()
            if not self._flush():
                break
            taken += self.encrypted
        return taken

    def recv(self, size: int) -> bytes:
        """What has come; nothing: the server has ended the connection."""
        if not self.is_open:  # what has come belongs to the handshake, which goes on in send()
            raise BlockingIOError(errno.EAGAIN, "in the handshake")
        self._take_in()
        try:
            data = self.tls.read(READ_BYTES)
            while self.incoming.pending and data:
                if not (more := self._read_on()):
                    break
                data += more
        except ssl.SSLWantReadError:
            raise BlockingIOError(errno.EAGAIN, "no whole record yet") from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            data = b""
        except ssl.SSLError as error:
            raise OSError(errno.EPROTO, tls_reason(error)) from None
        if not data:
            self._say_goodbye()
        return data

    def _read_on(self) -> bytes:
        """The next record, if it is whole; at the end of the connection nothing."""
        try:
            more = self.tls.read(READ_BYTES)
        except ssl.SSLError:  # if it is more than a record to come, the next recv() says so
            return b""
        if not more:
            self._say_goodbye()  # some servers wait for that before they close, and the poller tells of no more
        return more

    def _say_goodbye(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.tls.unwrap()
        self.unsent += self.outgoing.read()
        with contextlib.suppress(OSError):
            self._flush()

    def _shake_hands(self) -> None:
        """Go on with the handshake as far as the bytes allow. Raises OSError until it is over."""
        if self.connected_s and not self.unsent:
            self._take_in()
            if self.incoming.eof:
                raise ConnectionResetError(errno.ECONNRESET, "closed in the handshake")
        try:
            self.tls.do_handshake()
            self.is_open = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.outgoing.read()
            raise OSError(errno.EPROTO, tls_reason(error)) from None
        self.unsent += self.outgoing.read()
        self.encrypted = 0
        if self._flush():
            self.connected_s = self.connected_s or perf_counter()
        if not self.is_open:
            raise BlockingIOError(errno.EAGAIN, "in the handshake")

    def _take_in(self) -> None:
        """Read what the kernel has. Raises OSError where it has nothing, and nothing is left from before."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            if not self.incoming.pending:
                raise
            return
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def _write(self, data: bytes) -> int:
        try:
            return self.tls.write(data)
        except ssl.SSLWantReadError:
            raise BlockingIOError(errno.EAGAIN, "a record must come first") from None
        except ssl.SSLError as error:
            raise OSError(errno.EPROTO, tls_reason(error)) from None

    def _flush(self) -> bool:
        """Give the kernel what it takes; whether that is all. Raises OSError where the connection is lost."""
        if self.unsent:
            with contextlib.suppress(BlockingIOError):
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        return not self.unsent
