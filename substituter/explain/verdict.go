package explain

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Conclude writes the verdict and the notes from the facts.
func (p *Path) Conclude() {
	p.Notes = []string{}
	if p.Record != nil {
		p.Verdict = p.hit()
	} else {
		p.Verdict = "Would be 404: " + p.miss() + "."
	}
	for _, note := range []string{
		p.aboutAbsence(), p.aboutConflict(), p.aboutBan(), p.aboutStore(), p.aboutPeers(), p.aboutFetch(), p.aboutLimit(),
	} {
		if note != "" {
			p.Notes = append(p.Notes, note)
		}
	}
}

// hit says where record and NAR come from.
func (p *Path) hit() string {
	from := p.NARSource()
	switch {
	case from == "" && p.banned():
		return "The narinfo would be served: the record " + p.recordFrom() + ". But the NAR would be 404: what is left of its sources does not have it."
	case from == "":
		return "The narinfo would be served: the record " + p.recordFrom() + ". But the NAR would be 404: nobody who was asked has it."
	}
	return fmt.Sprintf("Would be served from %s: the record %s, and %s.", from, p.recordFrom(), p.because(from))
}

// recordFrom says where the record comes from.
func (p *Path) recordFrom() string {
	source := p.Record.Source
	switch source {
	case string(FromStore):
		source = "the local store"
	case string(FromPeers):
		source = "a peer"
	}
	if p.Record.Kept {
		return fmt.Sprintf("is kept, from %s %s ago", source, Span(p.Record.AgeSeconds))
	}
	return "is that of " + source
}

// What NARSource returns beside upstreams' addresses.
const (
	sourceStore = "the local store"
	sourcePeers = "peers"
)

// NARSource is who would deliver the NAR: "the local store", "peers", an
// upstream's address, or "" for nobody.
func (p *Path) NARSource() string {
	upstream := p.narUpstream()
	switch {
	case p.Record == nil:
		return ""
	case p.Store != nil && p.Store.NARHash == p.Record.NARHash && !p.excluded(FromStore):
		return sourceStore
	case p.Peers.Holders() > 0 && !p.excluded(FromPeers) && (upstream == "" || p.Plan == nil || p.Plan.Order != PeersLied):
		return sourcePeers
	case !p.excluded(FromUpstream):
		return upstream
	}
	return ""
}

// narUpstream is the first upstream that says it has the NAR.
func (p *Path) narUpstream() string {
	for _, a := range p.Upstreams {
		if p.Record != nil && a.NARHash == p.Record.NARHash && (p.Ban == nil || !slices.Contains(p.Ban.Upstreams, a.Upstream)) {
			return a.Upstream
		}
	}
	return ""
}

func (p *Path) because(from string) string {
	switch from {
	case sourceStore:
		return "the store has this very NAR"
	case sourcePeers:
		text := count(p.Peers.Holders(), "peer holds", "peers hold") + " the NAR"
		if upstream := p.narUpstream(); upstream != "" && !p.excluded(FromUpstream) {
			text += ", with " + upstream + " in reserve"
		}
		return text
	}
	return "no peer that holds the NAR is known"
}

// miss says why there is no record.
func (p *Path) miss() string {
	switch {
	case p.Ban != nil && p.Ban.Refused:
		return "the content of its unsigned record was not what its content address says, and the record is refused for " + Span(p.Ban.LeftSeconds)
	case len(p.Upstreams) == 0:
		return "there is no upstream to ask, and no peer that may be asked has a record that is believed"
	}
	var reasons []string
	for i := range p.Upstreams {
		if why := p.Upstreams[i].trouble(); why != "" {
			reasons = append(reasons, why)
		}
	}
	switch {
	case len(reasons) > 0:
		return strings.Join(reasons, "; ")
	case p.Absent != nil:
		return "the upstreams have said that there is no such path, which is remembered for a moment"
	case len(p.Upstreams) == 1:
		return p.Upstreams[0].Upstream + " says that there is no such path, and no peer that may be asked has a record that is believed"
	}
	return "all upstreams say that there is no such path, and no peer that may be asked has a record that is believed"
}

// trouble says why there is no record from an upstream that does not itself say
// that there is none.
func (a *Answer) trouble() string {
	because := ""
	if a.Error != "" {
		because = " (" + a.Error + ")"
	}
	switch a.Standing {
	case StandingNotBelieved:
		return a.Upstream + " has a record, but " + a.Error
	case StandingUnreachable:
		return a.Upstream + " does not answer" + because
	case StandingLeftAlone:
		return a.Upstream + " is left alone for a moment, since it failed" + because
	case StandingRefused:
		return a.Upstream + " does not let this node in" + because
	case StandingFiltered:
		return a.Upstream + " has it, but paths of this name are not wanted from there"
	}
	return ""
}

func (p *Path) banned() bool { return p.Ban != nil && len(p.Ban.Excluded)+len(p.Ban.Upstreams) > 0 }

func (p *Path) excluded(k Kind) bool { return p.Ban != nil && slices.Contains(p.Ban.Excluded, k) }

func (p *Path) aboutAbsence() string {
	if p.Absent == nil {
		return ""
	}
	return fmt.Sprintf("That it is absent was said %s ago; until %s from now requests get a 404 without anybody being asked.",
		Span(p.Absent.AgeSeconds), Span(p.Absent.LeftSeconds))
}

func (p *Path) aboutConflict() string {
	if p.Conflict == nil {
		return ""
	}
	hashes := map[string]bool{}
	for _, s := range p.Conflict.Statements {
		hashes[s.NARHash] = true
	}
	if len(hashes) == 1 {
		return "Trusted keys have signed different references or sizes for this path."
	}
	return fmt.Sprintf("Trusted keys have signed %d different NARs for this path.", len(hashes))
}

func (p *Path) aboutBan() string {
	if !p.banned() {
		return ""
	}
	var names []string
	for _, k := range p.Ban.Excluded {
		names = append(names, kindText(k))
	}
	names = append(names, p.Ban.Upstreams...)
	return fmt.Sprintf("For %s more the NAR is not taken from %s: wrong bytes have come from there.", Span(p.Ban.LeftSeconds), strings.Join(names, " and "))
}

// kindText is a kind of source in a sentence.
func kindText(k Kind) string {
	switch k {
	case FromStore:
		return "the local store"
	case FromPeers:
		return "peers"
	default:
		return "upstreams"
	}
}

func (p *Path) aboutStore() string {
	switch {
	case p.Store == nil:
		return ""
	case p.Record != nil && p.Store.NARHash != p.Record.NARHash:
		return "The local store has another NAR of this path."
	case p.Store.Shared:
		return "The local store has the path, and peers may have it."
	}
	return "The local store has the path, but peers do not get it: " + p.Store.NotShared + "."
}

// aboutLimit answers why the NAR comes no faster.
func (p *Path) aboutLimit() string {
	if from := p.NARSource(); p.DownloadLimit == 0 || from == "" || from == sourceStore {
		return ""
	}
	return fmt.Sprintf("Downloads are limited to %s/s now, all together: see fetch.download_limit and schedule.", Size(p.DownloadLimit))
}

// aboutPeers answers why the NAR does not come from a neighbour.
func (p *Path) aboutPeers() string {
	if p.Peers == nil {
		return ""
	}
	var text []string
	asked, silent := 0, 0
	for _, a := range p.Peers.Answers {
		if a.Connected {
			asked++
			if a.Error != "" {
				silent++
			}
		}
	}
	switch holders := p.Peers.Holders(); {
	case p.Peers.Connected == 0 && holders == 0:
		text = append(text, "No peer that could be asked is connected.")
	case asked > 0 && holders == 0:
		text = append(text, fmt.Sprintf("Of %s none says that it holds the NAR: it does not, or may not share it.", count(asked, "peer that was asked", "peers that were asked")))
	case holders > 0 && p.NARSource() != sourcePeers: // else the verdict says so
		text = append(text, count(holders, "peer holds", "peers hold")+" the NAR.")
	}
	if silent > 0 {
		text = append(text, count(silent, "peer has", "peers have")+" not answered.")
	}
	if p.Peers.Unasked != "" {
		text = append(text, sentence(p.Peers.Unasked))
	}
	return strings.Join(text, " ")
}

// aboutFetch says where the bytes came from the last time, and why not from
// peers.
func (p *Path) aboutFetch() string {
	f := p.Fetch
	if f == nil {
		return ""
	}
	from := map[Kind]int64{}
	reused := int64(0)
	for _, s := range f.Sources {
		from[s.Kind] += s.Bytes
		if s.Reused != nil {
			reused += s.Reused.BySum + s.Reused.ByMaskedSum
		}
	}
	from[FromPeers] -= reused
	var parts []string
	for _, k := range []Kind{FromStore, FromPeers, FromUpstream} {
		if from[k] > 0 {
			parts = append(parts, Size(from[k])+" from "+kindText(k))
		}
	}
	if reused > 0 {
		parts = append(parts, Size(reused)+" from other paths of the store")
	}
	took := "nothing"
	if len(parts) > 0 {
		took = strings.Join(parts, " and ")
	}
	text := fmt.Sprintf("The last time, %s ago, the NAR was %s: %s.", Span(p.Time.Sub(f.Started).Seconds()), resultText(f.Result), took)
	if why := f.WhyNotPeers(); why != "" {
		text += " " + sentence("nothing came from peers: "+why)
	}
	return text
}

func resultText(r Result) string {
	switch r {
	case Running:
		return "asked for and is under way"
	case Served:
		return "served"
	case Broken:
		return "broken off"
	case Gone:
		return "not waited for by the client"
	default:
		return "not delivered"
	}
}

// WhyNotPeers says why peers delivered nothing, or "" if they did.
func (f *Fetch) WhyNotPeers() string {
	var peers *Source
	first := Kind("") // of the sources that delivered
	for i := range f.Sources {
		s := &f.Sources[i]
		if s.Kind == FromPeers {
			peers = s
		}
		if first == "" && s.Bytes > 0 {
			first = s.Kind
		}
	}
	switch {
	case slices.Contains(f.Excluded, FromPeers):
		return "wrong bytes had come from them"
	case peers == nil:
		return NoPeers
	case peers.Bytes > 0:
		return ""
	case first == FromStore:
		return "the local store had it"
	case len(peers.Attempts) > 0:
		return lastEnd(peers.Attempts)
	case f.Order == NoHolderKnown:
		return "none that holds it was known, and the upstream delivered before they were asked"
	case f.Order == NotWorthSearch:
		return "none that holds it was known, and the upstream was expected to deliver before a search would end"
	case f.Order == PeersLied:
		return "wrong bytes had come from some"
	case f.Order == UpstreamFaster:
		return "the upstream was expected to be done before them"
	}
	return "their turn did not come"
}

// lastEnd says how the last attempt at peers ended.
func lastEnd(attempts []Attempt) string {
	last := attempts[len(attempts)-1]
	switch last.End {
	case Late:
		return "another source was quicker"
	case Stopped, UnderWay:
		return "they had not begun when the request ended"
	case Wrong:
		return "their bytes were wrong"
	default:
	}
	if last.Error != "" {
		return last.Error
	}
	return string(last.End)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// sentence makes a sentence of a clause.
func sentence(s string) string {
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// Span writes a time in seconds for people.
func Span(seconds float64) string {
	d := time.Duration(math.Min(math.Max(seconds, 0), 1e9) * float64(time.Second))
	switch {
	case d < time.Millisecond && d > 0:
		return "<1ms"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dmin", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// Size writes a number of bytes for people.
func Size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/(1<<10), 0
	for f >= 1<<10 {
		f, unit = f/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[unit])
}
