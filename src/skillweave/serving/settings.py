"""Settings of a service: its address, its batches, and what it takes from strangers."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveFloat

from skillweave.config.base import Config, Positive


class ServiceConfig(Config):
    """How saved models are served. Names follow text-generation-inference and
    text-embeddings-inference where they have the setting."""

    host: str = "127.0.0.1"
    """The address that is listened to: this machine alone, or 0.0.0.0 for every network."""
    port: int = 8000
    """The port; 0 takes a free one."""
    max_batch_tokens: Positive = 16_384
    """Tokens (positions of any modality) that the model sees at once."""
    merged_tasks: Positive = 16
    """Tasks of a model whose merged weights are kept: those of experts that do not depend on the
    data. Those that were used longest ago are merged anew."""
    max_concurrent_requests: Positive = 512
    """Requests that wait or are answered at once. One more is told to come again (429)."""
    max_client_batch_size: Positive = 256
    """Inputs of a request."""
    max_body_bytes: Positive = 32 * 2**20
    """Bytes of a request's body; a larger one is refused (413)."""
    body_seconds: PositiveFloat = 30
    """Time in which the headers of a request must have arrived (else the connection is closed), and
    then its body (408)."""
    request_seconds: PositiveFloat = 300
    """Time for an answer. What is not answered by then is refused (503), and is not computed if it
    still waits."""
    stop_seconds: Positive = 30
    """Time after SIGTERM in which requests that were accepted are answered."""
    api_keys: tuple[str, ...] = ()
    """Tokens, of which a request must bear one (`Authorization: Bearer TOKEN`); none for a service
    that is open to all who reach it."""
    client_requests_per_minute: NonNegativeInt = 0
    """Requests of one client, told by its token or else its address; 0 for any number."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts from which media are fetched that a request names by a web address, such as
    `images.example.org` or `.example.org`; none for no address at all. A name that leads to an
    address of an internal network is refused; to fetch from there, list that address itself."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the service (CORS); none but its own page."""
    isolate: bool = True
    """Whether pictures, recordings and clips are decoded in a child process with limits, so that a
    file that crashes a decoder does not stop the service."""
    workers: Positive = 4
    """Threads that read inputs while the model runs."""
