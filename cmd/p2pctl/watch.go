package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

func newWatch(o *options) *cobra.Command {
	var all bool
	var count int
	c := &cobra.Command{
		Use:   "watch",
		Short: "show what happens, as it does",
		Long: "Show requests, fetches with their sources, peers, announcements and problems as\n" +
			"they come, until it is interrupted. With --json each is a line.",
		Example: "  p2pctl watch\n  p2pctl watch --json | jq 'select(.kind == \"fetch\")'",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 {
				return usageError{fmt.Errorf("--count: %d is negative", count)}
			}
			lines, shown := json.NewEncoder(cmd.OutOrStdout()), 0
			err := o.client().Events(cmd.Context(), func(e events.Event) error {
				var err error
				switch {
				case e.Kind == events.KindPeer && !e.Peer.Exchange && !all:
					return nil
				case o.json:
					err = lines.Encode(e)
				default:
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s  %-8s  %s\n", e.Time.Local().Format(time.TimeOnly), e.Kind, eventText(&e))
				}
				if shown++; err == nil && shown == count {
					err = errShown
				}
				return err
			})
			if errors.Is(err, errShown) || cmd.Context().Err() != nil && errors.Is(err, cmd.Context().Err()) {
				return nil // it is how a watch ends
			}
			return err
		},
	}
	c.Flags().IntVarP(&count, "count", "n", 0, "end after so many events (default never)")
	c.Flags().BoolVar(&all, "all", false, "also peers that are no nodes of nar-p2p")
	return c
}

// errShown ends a watch that has shown what it was to show.
var errShown = errors.New("shown")

// eventText says in a line what happened.
func eventText(e *events.Event) string {
	switch e.Kind {
	case events.KindRequest:
		name := e.Request.StorePath
		if name == "" {
			name = e.Request.HashPart
		}
		return fmt.Sprintf("%s of %s: %s", e.Request.What, printable(path.Base(name)), e.Request.Result)
	case events.KindFetch:
		return fetchText(e.Fetch)
	case events.KindPeer:
		word := "gone"
		if e.Peer.Connected {
			word = "met"
		}
		return fmt.Sprintf("%s %s%s%s %s", word, e.Peer.ID, unless(!e.Peer.LAN, ", on the local network"), unless(!e.Peer.Relayed, ", relayed"), agentText(e.Peer.Agent))
	case events.KindAnnounce:
		return fmt.Sprintf("%d of %d keys, %s sent", e.Announce.Keys-e.Announce.Waiting, e.Announce.Keys, bytesText(uint64(e.Announce.SentBytes)))
	case events.KindSharing:
		return sharingText(e.Sharing)
	case events.KindProblem:
		return printable(e.Problem.Text)
	case events.KindLost:
		return fmt.Sprintf("%d events: they came faster than they could be shown", e.Lost)
	}
	return ""
}

func fetchText(f *explain.Fetch) string {
	name := printable(path.Base(f.StorePath))
	if f.Result == explain.Running {
		return fmt.Sprintf("%s, %s, begins", name, explain.Size(f.NARSize-f.Offset))
	}
	var from []string
	for _, s := range f.Sources {
		if s.Bytes == 0 {
			continue
		}
		who := string(s.Kind)
		switch {
		case s.Kind == explain.FromPeers && len(s.Peers) > 0:
			who = plural(len(s.Peers), "peer")
		case s.Name != "":
			who = printable(s.Name)
		}
		from = append(from, explain.Size(s.Bytes)+" from "+who)
	}
	text := fmt.Sprintf("%s: %s in %.2gs", name, f.Result, f.Seconds)
	if len(from) > 0 {
		text += ", " + strings.Join(from, ", ")
	}
	return text + unless(f.Error == "", " ("+printable(f.Error)+")")
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
