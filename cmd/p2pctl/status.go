package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

func newStatus(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "show how the node is, and what strangers can see of it",
		Example: "  p2pctl status\n  p2pctl status --json | jq .narBytes",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := o.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(cmd.OutOrStdout(), status)
			}
			return printStatus(cmd.OutOrStdout(), &status)
		},
	}
}

// nameColumn is the width of the column of names with the gap behind it.
const nameColumn = len("substituter  ")

func printStatus(w io.Writer, s *control.Status) error {
	t := table(w)
	row := func(name, format string, args ...any) {
		lines := []string{fmt.Sprintf(format, args...)}
		if isTerminal(w) {
			lines = wrap(lines[0], max(width(w)-nameColumn, 20))
		}
		for _, line := range lines {
			fmt.Fprintf(t, "%s\t%s\n", name, line)
			name = ""
		}
	}
	row("nar-p2pd", "%s, up %v", s.Version, time.Since(s.Started).Round(time.Second))
	row("profile", "%s, network %s%s", s.Profile, s.Network, unless(s.Role != "infrastructure", ", infrastructure"))
	if s.Sharing.Paused || s.Sharing.Metered {
		row("sharing", "%s", sharingText(&s.Sharing))
	}
	if text := meteredText(&s.Metered); text != "" {
		for i, line := range wrap(text, width(w)-nameColumn) {
			row(unless(i > 0, "connection"), "%s", line)
		}
	}
	if l := s.Limits; l != nil {
		row("limits", "%s", limitsText(l))
	}
	for _, line := range wrap(s.Visible, width(w)-nameColumn) {
		row("", "%s", line)
	}
	row("substituter", "%s", s.Substituter)
	if s.ServesRouting != "" {
		row("routing at", "%s", s.ServesRouting)
	}
	if s.Store.Kind == "none" {
		row("store", "none: fetches only")
	} else {
		row("store", "%s at %s, %d paths to share", s.Store.Kind, s.Store.Location, s.Store.Shareable)
	}
	row("state", "%s", s.StateDir)
	for _, u := range s.Upstreams {
		row("upstream", "%s%s, %s", u.URL, unless(!u.Private, ", private"), upstreamText(&u))
	}
	row("fetched", "%s from peers, %s from upstreams", bytesText(s.NARBytes["peer"]), bytesText(s.NARBytes["upstream"]))
	if reused := s.NARBytes["reuse"]; reused > 0 {
		row("reused", "%s from other paths of the store", bytesText(reused))
	}
	if s.P2P != nil {
		printP2P(row, s.P2P, width(w)-nameColumn)
	}
	return t.Flush()
}

// meteredText says whether the connection is metered, and "" where that need not be
// said.
func meteredText(m *control.Metered) string {
	switch {
	case m.Now && m.Setting == "auto":
		return "metered, as NetworkManager says: only what Nix asks for is fetched; metered = \"no\" shares all the same"
	case m.Now:
		return "metered, by the setting metered: only what Nix asks for is fetched"
	default:
		return ""
	}
}

// limitsText says which limits count, and until when.
func limitsText(l *control.Limits) string {
	rate := func(n int64) string {
		if n == 0 {
			return "no limit"
		}
		return bytesText(uint64(n)) + "/s"
	}
	text := fmt.Sprintf("upload %s, download %s", rate(l.Upload), rate(l.Download))
	if !l.Until.IsZero() {
		text += ", until " + l.Until.Local().Format("Mon 15:04")
	}
	return text + unless(l.Schedule == "", " (by the schedule)")
}

// upstreamText says how an upstream does.
func upstreamText(u *control.UpstreamStatus) string {
	switch latency := time.Duration(u.LatencySeconds * float64(time.Second)).Round(time.Millisecond); {
	case u.State == "open" && time.Now().After(u.OpenUntil):
		return fmt.Sprintf("open until it is next needed (%s)", printable(u.Problem))
	case u.State == "open":
		return fmt.Sprintf("open until %s (%s)", u.OpenUntil.Local().Format(time.TimeOnly), printable(u.Problem))
	case u.State == "unknown":
		return "not asked yet"
	case u.Problem != "":
		return fmt.Sprintf("%s, %v (last: %s)", u.State, latency, printable(u.Problem))
	default:
		return fmt.Sprintf("%s, %v", u.State, latency)
	}
}

func printP2P(row func(name, format string, args ...any), p *control.P2PStatus, columns int) {
	if p.Served != nil {
		row("served", "%s in %d sessions", bytesText(uint64(p.Served.Bytes)), p.Served.Sessions)
	}
	row("peer ID", "%s", p.PeerID)
	row("peers", "%d connected", p.Connected)
	name := "reached"
	for _, text := range []string{p.Reach.Why, p.Reach.Remedy} {
		for _, line := range wrap(text, columns) {
			if line != "" {
				row(name, "%s", line)
				name = ""
			}
		}
	}
	if p.Away != "" {
		row("shared", "nothing on %s, by the setting interface, and nothing is announced", printable(p.Away))
	}
	if v := p.Relaying; v != nil {
		row("relays", "for %d nodes, %d connections now, %s so far", v.Reservations, v.Connections, bytesText(uint64(v.Bytes)))
	}
	if p.Allowed != nil {
		row("allow-list", "%d peers", *p.Allowed)
	}
	if p.Foreign > 0 {
		row("foreign", "%d connections with nodes of other networks closed", p.Foreign)
	}
	row("DHT", "%s, %d nodes known", p.Routing, p.RoutingPeers)
	for _, e := range p.Endpoints {
		row("endpoint", "%s%s", e.URL, unless(e.Problem == "", ": "+printable(e.Problem)))
	}
	if p.Announcing != nil {
		printAnnouncing(row, p.Announcing)
	}
	for _, address := range p.Addresses {
		row("address", "%s", address)
	}
}

func printAnnouncing(row func(name, format string, args ...any), a *control.Announcing) {
	row("announced", "%d keys, %s sent", a.Keys-a.Waiting, bytesText(uint64(a.SentBytes)))
	if a.Waiting > 0 {
		row("", "%d more wait", a.Waiting)
	}
	if a.Skipped > 0 {
		row("", "%d more are beyond share.announce_budget", a.Skipped)
	}
	if a.Resting > 0 {
		row("", "%d more take turns", a.Resting)
	}
}

func unless(not bool, text string) string {
	if not {
		return ""
	}
	return text
}

// bytesText writes a number of bytes with a binary unit.
func bytesText(n uint64) string { return explain.Size(int64(n)) }
