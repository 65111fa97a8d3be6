"""Attention as a program on a tape."""

from __future__ import annotations

from qlora_tui.memory import attention_operations as heads
from qlora_tui.memory import kernel_operations as kernels
from qlora_tui.memory import operations as ops
from qlora_tui.memory.modules import Modules, module
from qlora_tui.memory.tape import Tensor


class Attention(Modules):
    """Queries, keys and values, their product, and the projection behind it."""

    @module
    def attention(self, hidden: Tensor) -> Tensor:
        """Attention with its projections."""
        query, key, value, fused = self._projected(hidden)
        query, key = self._heads_normed(query, key)
        named: tuple[Tensor, ...] = ()
        if self.kind.turned:
            query, key, named = self._turned(query, key)
        if self.settings.attention == "eager":
            output = self._eager(query, key, value)
        else:
            output = self._fused(query, key, value)
        output = self.linear(output, self.names.output, "hidden")
        del named, fused
        return output

    def _projected(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys, values, and what they were cut from, as far as it keeps its name."""
        names, tape = self.names, self.tape
        if self.build.split == "no":
            return (
                self.linear(hidden, names.query, "query"),
                self.linear(hidden, names.key, "key"),
                self.linear(hidden, names.value, "key"),
                None,
            )
        fused = self.linear(hidden, names.fused_qkv, "qkv")
        if self.build.split == "gathered":
            return *self._gathered(fused), fused
        query, key, value = ops.parts(tape, fused, ("query", "key", "key"), together=self.build.split == "thirds")
        return query, key, value, None

    def _gathered(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tape = self.tape
        query = ops.parts(tape, fused, ("query",))[0]
        key, value = heads.gathered(tape, fused, "key"), heads.gathered(tape, fused, "key")
        if self.settings.one_key_head:
            return query, key, value
        return ops.copy(tape, query), heads.expanded(tape, key, "query"), heads.expanded(tape, value, "query")

    def _heads_normed(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        kind = self.build.query_key_norm
        if kind == "none":
            return query, key
        if kind == "head by head":
            query = ops.normed_head_by_head(self.tape, query, "heads")
            return query, ops.normed_head_by_head(self.tape, key, "kv_heads")
        plain = not self.build.kernel_query_key_norm
        rows = ("one", "one") if kind == "whole" else ("heads", "kv_heads")
        return self.norm(query, rows[0], plain=plain), self.norm(key, rows[1], plain=plain)

    def _turned(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Queries, keys, and what the attention's forward pass names besides."""
        tape, rotation = self.tape, self.build.rotation
        if rotation == "none":
            return query, key, ()
        if self.kernels:
            slices = self.build.split != "no"
            query = kernels.turned_in_place(tape, query, slices=slices)
            return query, kernels.turned_in_place(tape, key, slices=slices), ()
        if rotation == "part":
            return heads.partly_turned(tape, query), heads.partly_turned(tape, key), ()
        if rotation == "part, named":
            queries, query_rest = heads.halves(tape, query)
            keys, key_rest = heads.halves(tape, key)
            queries, keys = heads.turned(tape, queries), heads.turned(tape, keys)
            query = ops.joined(tape, (queries, query_rest), "query")
            key = ops.joined(tape, (keys, key_rest), "key")
            return query, key, (queries, query_rest, keys, key_rest)
        if rotation == "pairs":
            return *heads.turned_by_pairs(tape, query, key), ()
        return heads.turned(tape, query), heads.turned(tape, key), ()

    def _fused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.kind.masked or self.settings.repeats_heads:
            key, value = heads.repeated(self.tape, key, "query"), heads.repeated(self.tape, value, "query")
        return heads.fused_attention(
            self.tape, query, key, value, masked=self.kind.masked, by_heads=self.kind.turned and self._joined
        )

    @property
    def _joined(self) -> bool:
        """Whether queries are put together from a turned part and the rest."""
        return self.build.rotation in ("part", "part, named") and not self.kernels

    def _eager(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        tape = self.tape
        keys = heads.repeated(tape, key, "query")
        values = heads.repeated(tape, value, "query")
        weights = heads.scores(tape, query, keys)
        if not self.build.scores_in_place:
            weights = ops.scaled(tape, weights)
        if self.build.softcapped:
            weights = ops.scaled(tape, weights)
            weights = ops.told_by_result(tape, weights)
            weights = ops.scaled(tape, weights)
        weights = ops.shifted(tape, weights)
        weights = heads.softmax(tape, weights, float16=self.settings.float16)
        if not self.build.scores_in_place:
            weights = ops.cast(tape, weights, query.bytes)
        if self.build.attention_dropout:
            weights = ops.dropped(tape, weights)
        self.weights = weights
        return ops.copy(tape, heads.weighted(tape, weights, values))
