package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

func newExplain(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "explain PATH",
		Short:   "tell why a store path would be served or not, and from where",
		Example: "  p2pctl explain /nix/store/…-hello-2.12.1\n  p2pctl explain --json 00bgd045z0d4icpbc2yyz4gx48ak44la",
		Long: "Tell what the node knows of a store path, which may be given by its hash part:\n" +
			"why Nix would get it or a 404, what each upstream says of it, what its\n" +
			"signatures are worth, which peers hold it, and where it came from the last time.\n\n" +
			"To find out it asks every upstream, and those peers that a fetch would ask.",
		Args:              usage(cobra.ExactArgs(1)),
		ValidArgsFunction: once(completePaths),
		RunE: func(cmd *cobra.Command, args []string) error {
			if target, err := control.ParseTarget(args[0]); err != nil || target.IsHash {
				return usageError{fmt.Errorf("%.80q is no store path and no hash part of one", args[0])}
			}
			var told *explain.Path
			err := waiting(cmd, "asking caches and peers", func() (err error) {
				told, err = o.client().Explain(cmd.Context(), args[0])
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), told)
			}
			e := &explanation{w: cmd.OutOrStdout(), columns: width(cmd.OutOrStdout())}
			return e.print(told)
		},
	}
}

// explanation prints rows of a name and a text, which continues below itself.
type explanation struct {
	w       io.Writer
	columns int
	name    string // of the row before
	err     error
}

// explainColumn is the width of the column of names with the gap behind it.
const explainColumn = len("last fetch  ")

// row prints a text, which keeps its indentation over several lines. A name that
// was printed just before is not repeated.
func (e *explanation) row(name, format string, args ...any) {
	if name == e.name {
		name = ""
	} else {
		e.name = name
	}
	text := printable(fmt.Sprintf(format, args...))
	column := explainColumn + len(text) - len(strings.TrimLeft(text, " "))
	for _, line := range wrap(text, e.columns-column) {
		e.line("%-*s%s", column, name, line)
		name = ""
	}
}

func (e *explanation) line(format string, args ...any) {
	if e.err == nil {
		_, e.err = fmt.Fprintln(e.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

func (e *explanation) print(p *explain.Path) error {
	name := p.StorePath
	if name == "" {
		name = p.HashPart
	}
	e.line("%s", printable(name))
	for _, text := range append([]string{p.Verdict}, p.Notes...) {
		for _, line := range wrap(printable(text), e.columns-2) {
			e.line("  %s", line)
		}
	}
	e.line("")
	e.store(p.Store)
	e.record(p.Record)
	for i := range p.Upstreams {
		e.upstream(&p.Upstreams[i])
	}
	if p.Conflict != nil {
		e.conflict(p.Conflict)
	}
	if p.Peers != nil {
		e.peers(p.Peers)
	}
	if p.Plan != nil {
		e.plan(p.Plan)
	}
	if p.Fetch != nil {
		e.fetch(p)
	}
	return e.err
}

func (e *explanation) store(s *explain.Store) {
	switch {
	case s == nil:
		e.row("store", "does not have it")
		return
	case s.Shared:
		e.row("store", "has it, peers may have it")
	default:
		e.row("store", "has it, not shared")
	}
	e.row("store", "%s", s.NARHash)
	e.row("store", "%s, %s", explain.Size(s.NARSize), signedBy(s.Signatures))
}

func (e *explanation) record(r *explain.Record) {
	if r == nil {
		e.row("record", "none that is believed")
		return
	}
	from := r.Source
	if r.Source == string(explain.FromPeers) {
		from = "a peer"
	}
	if r.Kept {
		e.row("record", "kept for %s, from %s%s", explain.Span(r.AgeSeconds), from, unless(!r.RefreshDue, ", to be asked for again"))
	} else {
		e.row("record", "from %s", from)
	}
	e.row("record", "%s", r.NARHash)
	e.row("record", "%s, references: %d", explain.Size(r.NARSize), r.References)
	switch r.Proof {
	case explain.BySignatures:
		e.row("record", "believed: %d of %d trusted keys needed have signed it", r.Signers, r.Threshold)
	case explain.ByName:
		e.row("record", "believed without signatures: its path follows from the NAR hash")
	case explain.ByContent:
		e.row("record", "believed if its content matches %s", r.ContentAddress)
	}
	e.row("record", "%s", signedBy(r.Signatures))
	if !r.Strangers {
		e.row("record", "strangers are not asked: %s", r.NoStrangers)
	}
}

// signedBy lists the signers with what their signatures are worth.
func signedBy(all []explain.Signature) string {
	if len(all) == 0 {
		return "no signature"
	}
	texts := make([]string, len(all))
	for i, s := range all {
		texts[i] = fmt.Sprintf("%s (%s)", s.Key, s.Verdict)
	}
	return "signed by " + strings.Join(texts, ", ")
}

func (e *explanation) upstream(a *explain.Answer) {
	e.row("upstream", "%s%s", a.Upstream, unless(!a.Private, ", private"))
	text := a.Standing
	if a.TookSeconds > 0 {
		text += ", after " + explain.Span(a.TookSeconds)
	}
	if a.UsualSeconds > 0 {
		text += ", usually " + explain.Span(a.UsualSeconds)
	}
	if a.Error != "" {
		text += ": " + a.Error
	}
	e.row("upstream", "  %s", text)
	if a.NARHash != "" {
		e.row("upstream", "  %s", a.NARHash)
		e.row("upstream", "  %s%s", signedBy(a.Signatures), unless(a.Malformed == 0, fmt.Sprintf(", %d malformed", a.Malformed)))
	}
}

func (e *explanation) conflict(c *explain.Conflict) {
	for _, s := range c.Statements {
		keys := make([]string, len(s.Signatures))
		for i, signature := range s.Signatures {
			keys[i], _, _ = strings.Cut(signature, ":")
		}
		e.row("conflict", "%s", s.NARHash)
		e.row("conflict", "  %s, validly signed by %s", explain.Size(s.NARSize), strings.Join(keys, " and "))
		e.row("conflict", "  from %s, first seen on %s", strings.Join(s.Sources, " and "), s.First.UTC().Format(time.DateOnly))
	}
}

func (e *explanation) peers(p *explain.Peers) {
	e.row("peers", "%d connected, %d of them on the local network, %d allowed", p.Connected, p.LAN, p.Allowed)
	if p.Searched {
		e.row("peers", "the DHT was searched, of which %d nodes are known", p.Routing)
	}
	if p.Unasked != "" {
		e.row("peers", "%s", p.Unasked)
	}
	for i := range p.Answers {
		e.row("peers", "%s", p.Answers[i].ID)
		e.row("peers", "  %s", peerText(&p.Answers[i]))
	}
}

func peerText(a *explain.PeerAnswer) string {
	text := "holds it"
	switch {
	case a.Error != "":
		text = a.Error
	case !a.Holds:
		text = "does not hold it, or may not share it"
	}
	switch {
	case !a.Connected:
		text += ", found in the DHT"
	case a.LAN:
		text += ", on the local network"
	case a.Relayed:
		text += ", through a relay only"
	}
	if a.LatencySeconds > 0 {
		text += ", " + explain.Span(a.LatencySeconds) + " away"
	}
	return text
}

func (e *explanation) plan(p *explain.Plan) {
	e.row("plan", "%s", p.Order)
	for i, s := range p.Sources {
		text := sourceText(s.Kind, s.Name)
		if i > 0 && s.AfterSeconds > 0 {
			text += ", after " + explain.Span(s.AfterSeconds) + " without progress"
		}
		e.row("plan", "%s", text)
		if s.Expected != nil {
			e.row("plan", "  %s", expectedText(s.Expected))
		}
	}
}

func (e *explanation) fetch(p *explain.Path) {
	f := p.Fetch
	e.row("last fetch", "%s ago, %s after %s%s", explain.Span(p.Time.Sub(f.Started).Seconds()), f.Result,
		explain.Span(f.Seconds), unless(f.Offset == 0, fmt.Sprintf(", from byte %d on", f.Offset)))
	if f.Error != "" {
		e.row("last fetch", "%s", f.Error)
	}
	e.row("last fetch", "%s", f.Order)
	for _, s := range f.Sources {
		e.row("last fetch", "%s: %s%s", sourceText(s.Kind, s.Name), explain.Size(s.Bytes),
			unless(s.Wasted == 0, fmt.Sprintf(", and %s in vain", explain.Size(s.Wasted)))+
				unless(s.HeldSeconds == 0, fmt.Sprintf(", held up for %s by the limit for downloads", explain.Span(s.HeldSeconds))))
		if r := s.Reused; r != nil {
			e.row("last fetch", "  %s of it from other paths of the store (%s with other hash parts), %s transferred",
				explain.Size(r.BySum+r.ByMaskedSum), explain.Size(r.ByMaskedSum), explain.Size(s.Bytes-r.BySum-r.ByMaskedSum))
		}
		if s.Expected != nil {
			e.row("last fetch", "  %s", expectedText(s.Expected))
		}
		if len(s.Attempts) == 0 {
			e.row("last fetch", "  its turn did not come")
		}
		for _, a := range s.Attempts {
			e.row("last fetch", "  %s", attemptText(&a))
		}
		for _, part := range s.Peers {
			e.row("last fetch", "  %s %s%s", part.Peer, explain.Size(part.Bytes), viaText(part.Via))
		}
	}
}

// viaText says which way bytes took.
func viaText(via string) string {
	switch via {
	case "lan":
		return " over the local network"
	case "direct":
		return " over a direct connection"
	case "relay":
		return " through a relay"
	default:
		return ""
	}
}

func sourceText(kind explain.Kind, name string) string {
	switch kind {
	case explain.FromStore:
		return "local store"
	case explain.FromPeers:
		return "peers"
	default:
		return name
	}
}

// expectedText says what was expected of a source.
func expectedText(x *explain.Expected) string {
	var parts []string
	if x.FirstByteSeconds > 0 {
		parts = append(parts, "first byte after "+explain.Span(x.FirstByteSeconds))
	}
	if x.BytesPerSecond > 0 {
		parts = append(parts, explain.Size(int64(x.BytesPerSecond))+"/s")
	}
	if x.Seconds > 0 {
		parts = append(parts, "all after "+explain.Span(x.Seconds))
	}
	if x.Local > 0 {
		parts = append(parts, fmt.Sprintf("%.0f %% of it in other paths of the store", 100*x.Local))
	}
	return "expected: " + strings.Join(parts, ", ")
}

func attemptText(a *explain.Attempt) string {
	text := fmt.Sprintf("started at %s", explain.Span(a.Start))
	switch a.Why {
	case explain.WhenFailed:
		text += " in the place of another"
	case explain.WhenSilent:
		text += " since nothing came"
	case explain.WhenSlow:
		text += " since too little came"
	case explain.WhenFaster:
		text += " as it would be faster"
	default:
	}
	if a.FirstByte > 0 {
		text += ", first byte at " + explain.Span(a.FirstByte)
	}
	text += fmt.Sprintf(", %s at %s", a.End, explain.Span(a.Stop))
	if a.Error != "" {
		text += ": " + a.Error
	}
	return text
}
