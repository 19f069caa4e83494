package rebuild

import (
	"math/rand/v2"
	"strings"
)

// Words of which names and texts are made.
var (
	syllables = []string{
		"arc", "bel", "cor", "dun", "elm", "fen", "gal", "hax", "ink", "jol", "kel", "lum", "mor", "nix", "orb", "pax",
		"qua", "rem", "sol", "tar", "ulm", "vex", "wen", "xil", "yar", "zet", "bram", "clav", "drey", "fros", "grim", "halt",
	}
	verbs = []string{
		"parse", "encode", "decode", "insert", "remove", "lookup", "resolve", "merge", "split", "flush", "commit", "revert",
		"open", "close", "read", "write", "scan", "match", "filter", "reduce", "expand", "shrink", "lock", "unlock", "bind",
		"attach", "detach", "verify", "sign", "digest", "compare", "copy", "move", "render", "layout", "measure", "sample",
		"notify", "schedule", "cancel", "resume", "drain", "probe", "reset", "update", "rotate", "append", "truncate", "seek",
	}
	nouns = []string{
		"header", "record", "block", "frame", "packet", "stream", "buffer", "cursor", "index", "table", "entry", "bucket",
		"node", "edge", "leaf", "page", "segment", "section", "symbol", "token", "string", "number", "field", "column",
		"row", "key", "value", "handle", "session", "request", "reply", "option", "flag", "queue", "stack", "cache", "pool",
		"region", "window", "palette", "pixel", "glyph", "font", "path", "matrix", "vector", "offset", "length", "checksum",
		"version", "locale", "calendar", "timer", "event", "signal", "channel", "socket", "address", "route", "peer",
	}
	adjectives = []string{
		"invalid", "empty", "pending", "stale", "partial", "nested", "duplicate", "unknown", "reserved", "default", "first",
		"last", "current", "previous", "total", "maximum", "minimum", "cached", "encoded", "raw", "signed", "local", "remote",
	}
	linking = []string{
		"is kept until", "must not exceed", "is compared with", "belongs to", "is written after", "replaces", "is freed with",
		"depends on", "stands before", "is counted in", "may be shared with", "is taken from", "is ignored without",
	}
	clauses = []string{
		"unless the caller has asked otherwise", "as older versions did", "which callers must not rely on", "in that order",
		"if there is enough memory", "on systems with threads", "since this is cheap", "except at the end of input",
		"where the locale says so", "and never the other way round", "as described below", "before anything is returned",
	}
)

func choose[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// sentence returns one about things that programs have.
func sentence(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString([]string{"The ", "A ", "Each ", "No ", "Every "}[r.IntN(5)])
	thing(r, &b)
	b.WriteString(" " + choose(r, linking) + " the ")
	thing(r, &b)
	if r.IntN(2) == 0 {
		b.WriteString(", " + choose(r, clauses))
	}
	if r.IntN(3) == 0 {
		b.WriteString("; see ")
		b.WriteString(choose(r, verbs) + "_" + choose(r, nouns))
	}
	b.WriteString(".")
	return b.String()
}

func thing(r *rand.Rand, b *strings.Builder) {
	if r.IntN(2) == 0 {
		b.WriteString(choose(r, adjectives) + " ")
	}
	b.WriteString(choose(r, nouns))
	if r.IntN(3) == 0 {
		b.WriteString(" of the " + choose(r, nouns))
	}
}

// paragraph returns sentences, in lines that begin with indent.
func paragraph(r *rand.Rand, sentences int, indent string) string {
	const width = 78
	var b strings.Builder
	column := width
	for range sentences {
		for word := range strings.FieldsSeq(sentence(r)) {
			if column+1+len(word) > width {
				if b.Len() > 0 {
					b.WriteByte('\n')
				}
				b.WriteString(indent)
				column = len(indent)
			} else {
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += len(word)
		}
	}
	b.WriteByte('\n')
	return b.String()
}
