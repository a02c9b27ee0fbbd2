"""The five components put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from skillweave.batch import Batch, Condition, Layout, Modality, span_name
from skillweave.components.decoders import build_decoder
from skillweave.components.embeddings import EMBEDDINGS, StreamEmbedding
from skillweave.components.embeddings.backbone import BackboneEmbedding
from skillweave.components.embeddings.base import SpanPlace
from skillweave.components.encoders import build_encoder
from skillweave.components.encoders.base import (
    Choice,
    Encoder,
    EncoderWeights,
    LayerStatistics,
    Resolved,
)
from skillweave.components.targets import Encoded, Target, TargetOutput
from skillweave.components.targets.base import output_weight
from skillweave.components.targets.language import Language
from skillweave.config import ConfigError, choose
from skillweave.layers.attention import Memory
from skillweave.layers.block import Block
from skillweave.layers.projector import Projector
from skillweave.layers.recompute import Recompute
from skillweave.layers.sparse import Known, Route, RouteStatistics
from skillweave.layers.tokens import TokenMap, map_spans, map_tokens
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.decoding import DecodingState, same_in_all
from skillweave.model.pretrained import Pretrained

Decision = tuple[Choice, tuple[Condition, ...], RouteStatistics]
"""A choice among experts that looked at the data, with the condition of each span that it was made
for."""
Load = dict[tuple[Choice, Condition], Tensor]
"""Choice among experts and condition → [E] the number of assignments of tokens to each expert."""

COMPILED_COMBINATIONS = 256
"""Combinations of spans and routes that are compiled. PyTorch gives up compiling after eight."""


@dataclass(frozen=True)
class Output:
    """What a forward pass gives: everything is returned, nothing is kept on the model.

    `loss`: the weighted sum of the targets' losses and balance losses, None without labels.
    `balance`: the balance losses alone, 0 without such routes.
    `losses`, `logits`, `positions`: by target; see `TargetOutput`. `load`: where routes look at the
    data, the number of assignments of tokens to each expert.
    """

    loss: Tensor | None
    balance: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    logits: Mapping[str, Tensor] = field(default_factory=dict)
    positions: Mapping[str, Tensor | None] = field(default_factory=dict)
    load: Load = field(default_factory=dict)


class Model(Pretrained):
    """Embeddings by modality, one shared encoder, targets by name."""

    def __init__(self, config: ModelConfig, assets: Mapping[str, bytes] | None = None) -> None:
        super().__init__(config, assets)
        streams = config.streams.present()
        shared: set[str] = set(config.shared)
        sharer = streams.get(Modality.TEXT) or streams.get(Modality.CODE)
        encoder, decoder, known = (
            config.encoder,
            config.decoder,
            Known(config.skills, tuple(config.tasks)),
        )
        self.shared = nn.ModuleDict(
            {
                name: EMBEDDINGS[name].from_stream(sharer, encoder.input_size or config.width)
                for name in sorted(shared)
            }
        )
        embeddings = {
            m.value: StreamEmbedding(m, s, config.input_size(m), shared, s.encoder or encoder)
            for m, s in streams.items()
        }
        self.embeddings = nn.ModuleDict(embeddings)
        self.encoder = build_encoder(encoder, config.width, known)
        own = {
            m.value: build_encoder(s.encoder, config.own_widths[m], known)
            for m, s in streams.items()
            if s.encoder
        }
        self.stream_encoders = nn.ModuleDict(own)
        self.projectors = nn.ModuleDict(
            {
                m.value: Projector(config.own_widths[m], config.width, s.projector == "mlp")
                for m, s in streams.items()
                if s.projector
            }
        )
        self.target_embedding, self.decoder = None, None
        if decoder is not None and (target := config.target_embedding) is not None:
            tied = {"word"} if target.tied else set()
            size = decoder.input_size or config.width
            self.target_embedding = StreamEmbedding(Modality.TEXT, target, size, tied, decoder)
            self.decoder = build_decoder(decoder, config.width, known)
        self.targets = nn.ModuleDict(
            {name: target.build(config) for name, target in config.targets.items()}
        )
        self._initialise(config.initial_std)

    def forward(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        resolved: Resolved | None = None,
        candidates: Tensor | None = None,
        loss_scales: Mapping[str, float] | None = None,
        loss_only: bool = False,
        chunk_size: int | None = None,
    ) -> Output:
        """Losses and logits of a batch.

        `generator`: of the routes' noise in training, seeded alike on all ranks; without one there
        is no noise. `resolved`: what `resolve` gave for the task. `candidates`: [C, D] the vectors
        that `embed` gave for the answers that the task chooses from, for a batch without candidates
        of its own. `loss_scales`: by target, a factor of its loss besides its weight, for a batch
        that is a part of an update. `loss_only`: no logits are returned, so those over a large
        vocabulary never exist all at once. `chunk_size`: the encoder runs on so many samples at a
        time, and again in the backward pass, for a task whose targets compare vectors alone. Raises
        ConfigError for a task the model never had or resolved weights of another.
        """
        if chunk_size is None or chunk_size >= len(batch):
            passes, load, balance = self._encode(batch, generator, resolved)
            return self.output(batch, passes, balance, load, candidates, loss_scales, loss_only)
        vectors, load, balance = self._encode_in_chunks(batch, generator, resolved, chunk_size)
        results = {
            name: cast(Target, self.targets[name]).compare_vectors(own, batch.labels)
            for name, own in vectors.items()
        }
        losses = {name: one.loss for name, one in results.items()}
        return self._output(batch, results, losses, balance, load, loss_scales)

    def output(
        self,
        batch: Batch,
        passes: list[Encoded],
        balance: Tensor,
        load: Load,
        candidates: Tensor | None = None,
        loss_scales: Mapping[str, float] | None = None,
        loss_only: bool = False,
    ) -> Output:
        """What `forward` gives, from the encoded passes of the batch, those of its candidates
        last."""
        task, labels = self._task(batch.layout.task), batch.labels
        results: dict[str, TargetOutput] = {}
        losses: dict[str, Tensor | None] = {}
        if batch.candidates is not None:
            *passes, encoded = passes
            candidates = self._vector(task, encoded)
            labels = {**labels, **batch.candidates.labels}
        for name in task.targets:
            embeddings = candidates
            if embeddings is None:
                embeddings = self._output_embeddings(batch.layout.task, name)
            target = cast(Target, self.targets[name])
            if loss_only:
                losses[name] = target.loss_alone(passes, labels, embeddings)
            else:
                results[name] = target(passes, labels, embeddings)
                losses[name] = results[name].loss
        return self._output(batch, results, losses, balance, load, loss_scales)

    def _output(
        self,
        batch: Batch,
        results: Mapping[str, TargetOutput],
        losses: Mapping[str, Tensor | None],
        balance: Tensor,
        load: Load,
        loss_scales: Mapping[str, float] | None,
    ) -> Output:
        """The results and losses of the targets put together."""
        task = self._task(batch.layout.task)
        known = {name: value for name, value in losses.items() if value is not None}
        loss = None
        if known:
            scales = loss_scales or {}
            weighted = [
                task.targets[name] * scales.get(name, 1.0) * value for name, value in known.items()
            ]
            loss = torch.stack(weighted).sum() + balance
        logits = {name: one.logits for name, one in results.items()}
        positions = {name: one.positions for name, one in results.items()}
        return Output(loss, balance, known, logits, positions, load)

    def loss_terms(self, batch: Batch) -> dict[str, int]:
        """By target of the batch's task: see `Target.loss_terms`."""
        return {
            name: cast(Target, self.targets[name]).loss_terms(batch)
            for name in self._task(batch.layout.task).targets
        }

    @torch.no_grad()
    def resolve(self, task: str) -> Resolved:
        """The experts of a task, merged once for weights that will not change: give it to `forward`
        and `embed`.

        It belongs to the caller, who drops it when the weights change; the model keeps nothing. It
        carries no gradient.
        """
        return self.resolve_conditions(dict.fromkeys(self.conditions(task)))

    def embed(self, batch: Batch, resolved: Resolved | None = None) -> list[Tensor]:
        """The unit-length vector of each sample, [N, D] per pass. `resolved`: as for `forward`."""
        task = self._task(batch.layout.task)
        passes = self._encode(batch, None, resolved)[0]
        return [self._vector(task, encoded) for encoded in passes]

    def hidden(self, batch: Batch, resolved: Resolved | None = None) -> list[Tensor]:
        """The encoder's output, [N, L, D] per pass, zeros where there is no token. `resolved`: as
        for `forward`."""
        return [encoded.padded() for encoded in self._encode(batch, None, resolved)[0]]

    def assignments(self, batch: Batch) -> Load:
        """The experts that the batch's tokens are assigned to, without noise: see `Load`."""
        return self._encode(batch)[1]

    def _vector(self, task: ModelTask, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass, as the task's targets compare them."""
        targets = [cast(Target, self.targets[name]) for name in task.targets]
        target = next((one for one in targets if one.embeds), next(iter(targets), None))
        return target.vector(encoded) if target else encoded.vector()

    def _decodes(self, condition: Condition) -> bool:
        """Whether the decoder reads spans of a condition."""
        spans = self.config.decoded(condition.task)
        return any(span_name(s.modality, s.role, s.attention) == condition.name for s in spans)

    def parts_of(self, condition: Condition) -> tuple[str, ...]:
        """Paths of the modules that run on the spans of a condition, in order: `decoder`, a
        stream's own encoder (`stream_encoders.image`), or `encoder`, which streams share. With a
        projector, the last two."""
        if self.decoder is not None and self._decodes(condition):
            return ("decoder",)
        own = condition.modality.value
        if own not in self.stream_encoders:
            return ("encoder",)
        shared = ("encoder",) if self.config.projected(condition.modality) else ()
        return (f"stream_encoders.{own}", *shared)

    def part_of(self, condition: Condition) -> str:
        """Path of the module that runs last, on all spans of a pass: see `parts_of`."""
        return self.parts_of(condition)[-1]

    def _part(self, condition: Condition) -> Encoder:
        return cast(Encoder, self.get_submodule(self.part_of(condition)))

    @property
    def parts(self) -> dict[str, Encoder]:
        """Path → encoder or decoder: see `part_of`."""
        own = [f"stream_encoders.{modality}" for modality in self.stream_encoders]
        paths = ["encoder", *own, *(["decoder"] if self.decoder is not None else [])]
        return {path: cast(Encoder, self.get_submodule(path)) for path in paths}

    def choices(self) -> dict[Choice, Route]:
        """Every choice among experts, with its route."""
        return {
            Choice(path, layer, site): route
            for path, part in self.parts.items()
            for layer, site, route in part.choices()
        }

    def resolve_conditions(
        self, counts: Mapping[Condition, int | None], generator: torch.Generator | None = None
    ) -> Resolved:
        """Each condition by the parts that run on it, in their order. `counts`: how many tokens of
        each there will be; None for any number."""
        known = {c: count for c, count in counts.items() if count is not None}
        parts = self.parts
        return {
            c: tuple(
                weights
                for path in self.parts_of(c)
                for weights in parts[path].resolve([c], generator, known)[c]
            )
            for c in counts
        }

    def _encode(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        resolved: Resolved | None = None,
    ) -> tuple[list[Encoded], Load, Tensor]:
        """Resolve the batch's conditions, then run each pass; also the experts' load and the
        balance loss."""
        counts = batch.condition_tokens
        if resolved is None:
            resolved = self.resolve_conditions(counts, generator)
        elif not counts.keys() <= resolved.keys():
            task = batch.layout.task
            raise ConfigError(
                f"the resolved weights are not those of task {task!r}; get them with"
                f" model.resolve({task!r})"
            )
        passes: list[Encoded] = []
        load: Load = {}
        balances: list[Tensor] = []
        for one, encoder_pass in passes_of(batch):
            memory = Memory(passes[0].hidden_TD, passes[0].tokens) if passes else None
            encoded, ran = self._run(one, encoder_pass, resolved, memory, generator)
            passes.append(encoded)
            for choice, conditions, route in ran:
                if route.balance is not None:
                    balances.append(route.balance)
                for condition, load_E in zip(conditions, route.load, strict=True):
                    key = choice, condition
                    load[key] = load[key] + load_E if key in load else load_E
        balance = (
            torch.stack(balances).mean()
            if balances
            else torch.zeros((), device=passes[0].hidden_TD.device)
        )
        return passes, load, balance

    def _encode_in_chunks(
        self,
        batch: Batch,
        generator: torch.Generator | None,
        resolved: Resolved | None,
        chunk_size: int,
    ) -> tuple[dict[str, list[Tensor]], Load, Tensor]:
        """The vectors [N, D] of each pass by target, the experts' load and the balance loss. Each
        chunk computes its activations again when its gradient is known, with the same random
        numbers, so those of one chunk exist at a time (GradCache, arXiv 2101.06983)."""
        names = list(self._task(batch.layout.task).targets)
        if resolved is None:
            resolved = self.resolve_conditions(batch.condition_tokens, generator)

        def vectors(part: Batch, generator: torch.Generator | None) -> Any:
            passes, load, balance = self._encode(part, generator, resolved)
            targets = [cast(Target, self.targets[name]) for name in names]
            return [[one.vector(encoded) for encoded in passes] for one in targets], load, balance

        chunks = [partial(vectors, part) for part in batch.split(chunk_size)]
        if torch.is_grad_enabled():
            found = [Recompute().run(chunk, generator) for chunk in chunks]
        else:
            found = [chunk(generator) for chunk in chunks]
        by_target = zip(*(own for own, _, _ in found), strict=True)
        joined = {
            name: [torch.cat(parts) for parts in zip(*own, strict=True)]
            for name, own in zip(names, by_target, strict=True)
        }
        load = {key: torch.stack([one[key] for _, one, _ in found]).sum(0) for key in found[0][1]}
        return joined, load, torch.stack([balance for _, _, balance in found]).mean()

    def _run(
        self,
        batch: Batch,
        encoder_pass: int,
        resolved: Resolved,
        memory: Memory | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Encoded, list[Decision]]:
        """One pass, and what its routes that look at the data decided. `memory`: what the decoder
        attends to, in its pass."""
        x_TD, tokens, decisions = self.embed_tokens(batch, encoder_pass, resolved, generator)
        path = self.part_of(tokens.conditions[0])
        given = memory if path == "decoder" else None
        hidden_TD, statistics = self.run_part(path, x_TD, tokens, resolved, generator, given)
        decisions += _decisions(path, tokens, statistics)
        return self.encoded(batch, encoder_pass, hidden_TD, tokens), decisions

    def encoded(
        self, batch: Batch, encoder_pass: int, hidden_TD: Tensor, tokens: TokenMap
    ) -> Encoded:
        """What the targets read of a pass."""
        spans = batch.layout.passes[encoder_pass]
        masked = batch.masked[spans[0]] if batch.masked and len(spans) == 1 else None
        last = encoder_pass == len(batch.layout.passes) - 1
        keep = batch.logits_to_keep if last else None
        image = self.config.streams.image
        pictured = tokens.conditions[0].modality is Modality.IMAGE
        registers = image.registers if image is not None and pictured else 0
        return Encoded(hidden_TD, tokens, keep, masked, registers)

    def run_part(
        self,
        path: str,
        x_TD: Tensor,
        tokens: TokenMap,
        resolved: Resolved,
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, LayerStatistics]:
        """Flat tokens through an encoder or decoder, with its share of the resolved weights."""
        part = cast(Encoder, self.get_submodule(path))
        weights = [self.weights_of(path, c, resolved) for c in tokens.conditions]
        return part(x_TD, tokens, weights, generator, memory)

    def weights_of(self, path: str, condition: Condition, resolved: Resolved) -> EncoderWeights:
        """What `resolve_conditions` gave for a part: those of the parts before it stand first."""
        paths = self.parts_of(condition)
        if len(paths) == 1:
            return resolved[condition]
        parts = self.parts
        start = sum(len(parts[before].blocks) for before in paths[: paths.index(path)])
        return resolved[condition][start : start + len(parts[path].blocks)]

    def memory(self, batch: Batch, resolved: Resolved) -> Memory:
        """What the decoder looks at: the first pass, encoded. `resolved`: what `resolve` gave for
        the task."""
        encoded, _ = self._run(batch, 0, resolved)
        return Memory(encoded.hidden_TD, encoded.tokens)

    @torch.no_grad()
    def prefill(self, batch: Batch, resolved: Resolved | None = None) -> DecodingState:
        """What `step` needs to write on after the last span of a batch, a causal text.

        It may stand alone (a language model), after other spans of its pass (a prefix), or in a
        decoder's pass. The samples may have unequal lengths. `resolved`: as for `forward`. Raises
        ConfigError for another last span, and for a task that writes no text.
        """
        layout, task = batch.layout, batch.layout.task
        if layout.packed or not layout.spans[-1].causal:
            raise ConfigError(f"task {task!r}: its last span is no causal text, so it writes none")
        resolved = self.resolve(task) if resolved is None else resolved
        last = len(layout.passes) - 1
        memory = self.memory(batch, resolved) if last else None
        x_TD, tokens, _ = self.embed_tokens(batch, last, resolved)
        condition = tokens.conditions[-1]
        path = self.part_of(condition)
        caches = self._part(condition).new_caches()
        cached = replace(tokens, caches=caches)
        hidden_TD, _ = self.run_part(path, x_TD, cached, resolved, memory=memory)
        written, device = len(layout.spans) - 1, x_TD.device
        encoded = Encoded(hidden_TD, tokens)
        embedding, _ = self._embedding(condition)
        segment, starts_N, _ = embedding.place(layout, written, batch.lengths)
        begin_N = batch.lengths[:, written] + (0 if starts_N is None else starts_N)
        return DecodingState(
            condition=condition,
            segment=segment,
            weights=self.weights_of(path, condition, resolved),
            memory=memory,
            caches=caches,
            prefilled=tokens.length,
            lengths=(tokens.lengths[:1] if tokens.valid is None else tokens.lengths).to(device),
            starts=same_in_all(begin_N).to(device),
            positions=tokens.positions(device),
            valid=tokens.valid,
            logits=self._next_logits(task, encoded.last()),
            hidden=encoded.padded(),
        )

    @torch.no_grad()
    def step(self, tokens_NL: Tensor, state: DecodingState) -> Tensor:
        """Logits [N, V] after the next tokens [N, L] of each sample. The state then counts them."""
        return self.steps(tokens_NL, state, 1)[:, -1]

    @torch.no_grad()
    def steps(self, tokens_NL: Tensor, state: DecodingState, count: int) -> Tensor:
        """As `step`, but logits [N, count, V] after each of the last `count` tokens."""
        embedding, shared = self._embedding(state.condition)
        tokens = state.new_tokens(tokens_NL.shape[1])
        place = SpanPlace(state.segment, state.starts, tokens.lengths)
        x_TD = embedding(tokens_NL, place, shared)
        part = self._part(state.condition)
        hidden_TD, _ = part(x_TD.flatten(0, 1), tokens, [state.weights], None, state.memory)
        hidden_NLD = tokens.to_padded(hidden_TD)
        logits_NLV = self._next_logits(state.condition.task, hidden_NLD[:, -count:])
        state.extended(tokens, logits_NLV[:, -1], hidden_NLD)
        return logits_NLV

    def writing_weights(self, task: str) -> list[Tensor]:
        """The matrices that a task's written tokens are multiplied with, one by one."""
        part = self._part(self.conditions(task)[-1])
        linear = [m.weight for m in part.modules() if isinstance(m, nn.Linear)]
        target, embeddings = self._writer(task)
        return [*linear, output_weight(target.output, embeddings)]

    def _writer(self, task: str) -> tuple[Language, Tensor | None]:
        """The target that gives a task's texts, and the word embedding that it is tied to."""
        names = [t for t in self._task(task).targets if self.config.targets[t].writes_text]
        if not names:
            raise ConfigError(f"task {task!r} has no target of kind 'lm', so it writes no text")
        target = cast(Language, self.targets[names[0]])
        return target, self._output_embeddings(task, names[0])

    def _next_logits(self, task: str, hidden_D: Tensor) -> Tensor:
        """Logits [..., V] of the word after each vector [..., D]."""
        target, embeddings = self._writer(task)
        return target.token_logits(hidden_D, embeddings)

    def embed_tokens(
        self,
        batch: Batch,
        encoder_pass: int,
        resolved: Resolved,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, TokenMap, list[Decision]]:
        """What the last part of a pass reads: embeddings, or what projectors make of the outputs of
        streams' own encoders. Also the decisions of their routes."""
        layout, spans = batch.layout, batch.layout.passes[encoder_pass]
        embedded = {s: self._embed_span(batch, s) for s in spans}
        device, decisions = embedded[spans[0]].device, []
        for path, own in self.projected_spans(layout, spans).items():
            tokens = map_spans(layout, own, batch.lengths, device)
            decisions += self.project(path, own, embedded, tokens, resolved, generator)
        parts = [embedded[s] for s in spans]
        tokens = map_tokens(layout, encoder_pass, batch.lengths, parts[0].device)
        x_NLD = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return tokens.to_tokens(x_NLD), tokens, decisions

    def _embed_span(self, batch: Batch, span: int) -> Tensor:
        """[N, L, D] the embeddings of a span."""
        masked, given = batch.masked[span] if batch.masked else None, batch.inputs[span]
        embedding, shared = self._embedding(batch.layout.condition(span))
        place = embedding.place(batch.layout, span, batch.lengths)
        if place.starts_N is not None:
            place = place._replace(starts_N=place.starts_N.to(given.device, non_blocking=True))
        return embedding(given, place, shared, masked)

    def projected_spans(self, layout: Layout, spans: Iterable[int]) -> dict[str, tuple[int, ...]]:
        """Path of a stream's own encoder → those of a pass's spans that it runs on before the
        shared one."""
        found: dict[str, tuple[int, ...]] = {}
        for s in spans:
            first, *others = self.parts_of(layout.condition(s))
            if others:
                found[first] = (*found.get(first, ()), s)
        return found

    def project(
        self,
        path: str,
        spans: Sequence[int],
        embedded: dict[int, Tensor],
        tokens: TokenMap,
        resolved: Resolved,
        generator: torch.Generator | None = None,
    ) -> list[Decision]:
        """Replace the embeddings of a stream's spans, which see each other, by what its projector
        makes of the outputs of its own encoder. `tokens`: their token map."""
        x_NLD = torch.cat([embedded[s] for s in spans], dim=1)
        x_TD, statistics = self.run_part(path, tokens.to_tokens(x_NLD), tokens, resolved, generator)
        projector = self.projectors[tokens.conditions[0].modality.value]
        x_NLD = tokens.to_padded(projector(x_TD))
        embedded |= zip(spans, x_NLD.split(tokens.padded, dim=1), strict=True)
        return _decisions(path, tokens, statistics)

    def _embedding(self, condition: Condition) -> tuple[StreamEmbedding, Any]:
        """The embedding of a condition's spans, and the modules that it shares."""
        if self.target_embedding is None or not self._decodes(condition):
            own = self.embeddings[condition.modality.value]
            return cast(StreamEmbedding, own), self.shared
        tied = "word" not in self.target_embedding.content
        shared = {"word": self.word_embedding(condition.modality)} if tied else {}
        return self.target_embedding, shared

    def output_embeddings(self, task: str) -> Tensor | None:
        """The word embedding that the output layer of a task's first target is tied to; None where
        it has its own weights or none."""
        return self._output_embeddings(task, next(iter(self.config.tasks[task].targets)))

    def _output_embeddings(self, task: str, target: str) -> Tensor | None:
        """The word embedding that a target's output layer is tied to."""
        path = self.output_path(task, target)
        return None if path is None else self.get_parameter(path)

    def output_path(self, task: str, target: str) -> str | None:
        """Its path: the decoder's own for a task of which the decoder reads spans, otherwise the
        modality's."""
        modality = self.config.targets[target].tied_to
        if modality is None:
            return None
        own = self.config.target_embedding
        if own is not None and not own.tied and self.config.decoded(task):
            return "target_embedding.content.word.weight"
        return self._path_of_words(modality)

    def words(self, modality: Modality) -> Tensor:
        """[V, D] the word embedding of text or code, its own or shared."""
        return self.word_embedding(modality).weight

    def word_embedding(self, modality: Modality) -> nn.Embedding:
        """The module whose weight `words` gives."""
        return cast(
            nn.Embedding, self.get_submodule(self._path_of_words(modality).removesuffix(".weight"))
        )

    def _path_of_words(self, modality: Modality) -> str:
        own = f"embeddings.{modality.value}.content.word"
        return f"{'shared.word' if 'word' in self.shared else own}.weight"

    def _task(self, name: str) -> ModelTask:
        return choose(self.config.tasks, name, "task")

    def conditions(self, task: str) -> list[Condition]:
        """The routing conditions of a task's spans."""
        layout = self._task(task).layout(task)
        return [layout.condition(span) for span in range(len(layout.spans))]

    def active_parameters(self, tasks: str | Collection[str]) -> list[str]:
        """Names of the parameters that any of the tasks activates. Raises ConfigError for a task
        the model never had."""
        wanted = [tasks] if isinstance(tasks, str) else list(tasks)
        conditions = [c for task in wanted for c in self.conditions(task)]
        modalities = {c.modality for c in conditions if not self._decodes(c)}
        targets = {target for task in wanted for target in self._task(task).targets}
        prefixes = {
            f"{kind}.{m.value}." for kind in ("embeddings", "projectors") for m in modalities
        }
        prefixes |= {f"targets.{t}." for t in targets}
        own = self.config.target_embedding
        if own is not None and any(self._decodes(c) for c in conditions):
            prefixes |= {
                "target_embedding.",
                *(("embeddings.text.content.word.", "shared.word.") if own.tied else ()),
            }
        if any("word" in getattr(self.config.streams, m.value).embedding for m in modalities):
            prefixes.add("shared.")
        prefixes |= {
            path
            for task in wanted
            for t in self._task(task).targets
            if (path := self.output_path(task, t))
        }
        parts = self.active_parts(conditions)
        idle = {
            f"{path}.{name}"
            for path, own in parts.items()
            for name in self.parts[path].inactive(own)
        }
        if not any(self.config.targets[t].masks_inputs for t in targets):
            idle |= {f"embeddings.{m.value}.mask" for m in modalities}
        active = tuple([*(f"{path}." for path in parts), *prefixes])
        return [
            name
            for name, _ in self.named_parameters()
            if name.startswith(active) and name not in idle
        ]

    def active_parts(self, conditions: Iterable[Condition]) -> dict[str, list[Condition]]:
        """Path of each encoder or decoder that runs → the conditions that it runs on."""
        found: dict[str, list[Condition]] = {}
        for condition in conditions:
            for path in self.parts_of(condition):
                found.setdefault(path, []).append(condition)
        return found

    def recompute_activations(self, recompute: Recompute | None) -> None:
        """Set which layers compute their activations again in the backward pass; None for none.
        Encoders that are no Transformer always keep theirs."""
        for part in self.parts.values():
            part.recompute = recompute

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile the blocks of Transformers (`torch.compile`) when they are used first: once for
        each combination of spans and routes, for batches of any size and length. Names and weights
        stay the same, so a compiled model is saved as any other."""
        most: Any = max(torch._dynamo.config.recompile_limit, COMPILED_COMBINATIONS)
        torch._dynamo.config.recompile_limit = most
        for module in self.modules():
            if isinstance(module, Block):
                module.compile(backend=backend, dynamic=True)

    def count_parameters(self, tasks: str | Collection[str] | None = None) -> int:
        """All parameters, or those that the tasks activate, counted as in SkillNet's Table 3.

        Where a route looks at the data, the experts that one token uses are counted. Otherwise the
        experts that the gates pick, or without weights (on the meta device) as many as they pick
        for one condition.
        """
        sizes = {name: p.numel() for name, p in self.named_parameters()}
        if tasks is None:
            return sum(sizes.values())
        wanted = [tasks] if isinstance(tasks, str) else tasks
        parts = self.active_parts(c for task in wanted for c in self.conditions(task))
        idle = sum(self.parts[path].idle_per_token() for path in parts)
        return sum(sizes[name] for name in self.active_parameters(tasks)) - idle

    def _initialise(self, std: float) -> None:
        """N(0, std) for linear layers and tables, zeros for biases (BERT); waveforms keep
        Kaiming's, pictures and backbones have their own."""
        own = {
            m for b in self.modules() if isinstance(b, BackboneEmbedding) for m in b.model.modules()
        }
        for name, module in self.named_modules():
            if module in own or (isinstance(module, nn.Conv1d) and "convolutions" in name):
                continue
            if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d):
                nn.init.normal_(module.weight, 0.0, std)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
        for embedding in cast(Mapping[str, StreamEmbedding], self.embeddings).values():
            embedding.initialise_patches()


def passes_of(batch: Batch) -> list[tuple[Batch, int]]:
    """The passes of a batch and then of its candidates, each as its batch and number."""
    return [(one, number) for one in batch.parts for number in range(len(one.layout.passes))]


def _decisions(path: str, tokens: TokenMap, statistics: LayerStatistics) -> list[Decision]:
    return [
        (Choice(path, layer, site), tokens.conditions, route)
        for (layer, site), route in statistics.items()
    ]
