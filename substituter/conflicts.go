package substituter

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
)

const (
	// keepConflicts is how long evidence is kept after it was last seen.
	keepConflicts = 90 * 24 * time.Hour
	// maxConflicts bounds the paths of which evidence is kept, and
	// maxStatements what is kept of one path: some 40 MB in all at worst.
	maxConflicts  = 256
	maxStatements = 8
	// maxVouchers bounds the signatures and the sources of one statement, and
	// maxReferences the length of its references, in bytes.
	maxVouchers   = 16
	maxReferences = 16 << 10
	// roomTime is for looking through all evidence.
	roomTime = time.Second
	// sawAgain is how often it is written that a statement was seen again.
	sawAgain = time.Hour
)

// What records contradict each other in, as metrics call it.
const (
	inNARHash    = "narHash"
	inNARSize    = "narSize"
	inReferences = "references"
)

// said is a record and who sent it.
type said struct {
	info   *narinfo.Info
	source string
}

// sourceName is how evidence calls the source of a record.
func sourceName(k kind, upstream string) string { return cmp.Or(upstream, k.String()) }

// conflicts keeps the evidence. Only what trusted keys have validly signed
// counts, so that nobody else can fill it.
type conflicts struct {
	keys   func() *trust.Keys
	counts *family
	log    *zap.Logger

	bucket Bucket // nil: none is kept

	mu sync.Mutex // held while evidence changes
}

func newConflicts(bucket Bucket, keys func() *trust.Keys, counts *family, log *zap.Logger) *conflicts {
	return &conflicts{keys: keys, counts: counts, log: log, bucket: bucket}
}

// of returns the evidence of a path, or nil.
func (c *conflicts) of(part nix.HashPart) *explain.Conflict {
	if c.bucket == nil {
		return nil
	}
	data, err := c.bucket.Get(part[:])
	if err != nil {
		return nil
	}
	found := &explain.Conflict{}
	if err := json.Unmarshal(data, found); err != nil {
		c.log.Debug("kept evidence is of no use", zap.Stringer("hashPart", part), zap.Error(err))
		return nil
	}
	return found
}

// note keeps records of one path as evidence if they contradict each other.
func (c *conflicts) note(records ...said) {
	if c.bucket == nil {
		return
	}
	var statements []explain.Statement
	for _, r := range records {
		s, ok := c.statement(r)
		if ok && !slices.ContainsFunc(statements, s.Same) {
			statements = append(statements, s)
		}
	}
	if len(statements) < 2 {
		return
	}
	path := records[0].info.StorePath
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.of(path.HashPart())
	if old == nil {
		old = &explain.Conflict{StorePath: path.String()}
		if err := c.makeRoom(); err != nil {
			c.log.Warn("evidence not kept: old evidence not removed", zap.Stringer("storePath", path), zap.Error(err))
			return
		}
	}
	changed := false
	for _, s := range statements {
		changed = c.enter(old, s) || changed
	}
	if changed {
		c.write(path.HashPart(), old)
	}
}

// statement returns what is signed of a record, if a trusted key has signed it.
func (c *conflicts) statement(r said) (explain.Statement, bool) {
	signatures := r.info.ValidSignatures(c.keys().Trusted)
	if len(signatures) == 0 {
		return explain.Statement{}, false
	}
	now := time.Now()
	s := explain.Statement{
		NARHash: r.info.NARHash.String(), NARSize: r.info.NARSize,
		Fingerprint: nix.NARHash(sha256.Sum256([]byte(r.info.Fingerprint()))).String(),
		Sources:     []string{r.source}, First: now, Last: now,
	}
	for _, signature := range signatures[:min(len(signatures), maxVouchers)] {
		s.Signatures = append(s.Signatures, signature.String())
	}
	length := 0
	for _, ref := range r.info.References {
		s.References = append(s.References, ref.BaseName())
		length += len(ref.BaseName())
	}
	if length > maxReferences {
		s.References = nil
	}
	return s, true
}

// enter adds a statement to the evidence, and reports whether that changes it.
func (c *conflicts) enter(old *explain.Conflict, s explain.Statement) bool {
	i := slices.IndexFunc(old.Statements, s.Same)
	if i < 0 {
		if len(old.Statements) == maxStatements {
			return false
		}
		old.Statements = append(old.Statements, s)
		if len(old.Statements) > 1 {
			c.report(old, &old.Statements[0], &s)
		}
		return true
	}
	known := &old.Statements[i]
	changed := time.Since(known.Last).Abs() > sawAgain
	known.Last = s.Last
	changed = unite(&known.Signatures, s.Signatures) || changed
	return unite(&known.Sources, s.Sources) || changed
}

// unite adds to a list what it lacks, as far as there is room.
func unite(list *[]string, more []string) (changed bool) {
	for _, s := range more {
		if !slices.Contains(*list, s) && len(*list) < maxVouchers {
			*list = append(*list, s)
			changed = true
		}
	}
	return changed
}

// report tells of a new contradiction, once.
func (c *conflicts) report(conflict *explain.Conflict, first, other *explain.Statement) {
	in := inReferences
	switch {
	case first.NARHash != other.NARHash:
		in = inNARHash
	case first.NARSize != other.NARSize:
		in = inNARSize
	}
	c.counts.add(in)
	c.log.Warn("trusted keys have signed records that contradict each other",
		zap.String("storePath", conflict.StorePath), zap.String("in", in),
		zap.String("narHash", first.NARHash), zap.Strings("sources", first.Sources), zap.Strings("signatures", first.Signatures),
		zap.String("otherNarHash", other.NARHash), zap.Strings("otherSources", other.Sources), zap.Strings("otherSignatures", other.Signatures))
}

func (c *conflicts) write(part nix.HashPart, evidence *explain.Conflict) {
	data, err := json.Marshal(evidence)
	if err == nil {
		err = c.bucket.Put(part[:], data, keepConflicts)
	}
	if err != nil {
		c.log.Warn("evidence not kept", zap.String("storePath", evidence.StorePath), zap.Error(err))
	}
}

// makeRoom removes the evidence that was last seen longest ago, where there is
// as much as may be.
func (c *conflicts) makeRoom() error {
	ctx, cancel := context.WithTimeout(context.Background(), roomTime)
	defer cancel()
	type seen struct {
		key  []byte
		last time.Time
	}
	var all []seen
	err := c.bucket.Each(ctx, func(key, value []byte) error {
		var evidence explain.Conflict
		_ = json.Unmarshal(value, &evidence) // what cannot be read is the first to go
		s := seen{key: slices.Clone(key)}
		for _, statement := range evidence.Statements {
			if statement.Last.After(s.last) {
				s.last = statement.Last
			}
		}
		all = append(all, s)
		return nil
	})
	slices.SortFunc(all, func(a, b seen) int { return a.last.Compare(b.last) })
	for _, s := range all[:max(len(all)-maxConflicts+1, 0)] {
		if err == nil {
			err = c.bucket.Delete(s.key)
		}
	}
	return err
}

// compare looks for contradictions between an answer, which has become part of
// a candidate, the other candidates, and the record that is kept.
func (f *search) compare(a answer, own *candidate) {
	records := []said{{a.info, f.source(a)}}
	for _, c := range f.seen {
		if c.fingerprint != own.fingerprint {
			records = append(records, said{c.info, sourceName(fromPeers, c.upstream)})
		}
	}
	if kept := f.s.records.current(f.part); kept != nil && kept.info.Fingerprint() != own.fingerprint {
		records = append(records, kept.said())
	}
	if len(records) > 1 {
		f.s.conflicts.note(records...)
	}
}

func (*search) source(a answer) string {
	if a.turn == nil {
		return fromPeers.String()
	}
	return a.turn.String()
}

// said is the record as evidence. One that is of no upstream and private is the
// local store's.
func (r *record) said() said {
	if r.upstream == "" && r.private {
		return said{r.info, fromStore.String()}
	}
	return said{r.info, sourceName(fromPeers, r.upstream)}
}

// otherInStore takes note that the local store has another NAR of a path than
// the record says.
func (s *Server) otherInStore(rec *record, path *narstore.PathInfo) {
	s.conflicts.note(rec.said(), said{path.Narinfo(), fromStore.String()})
}

// settle returns which record of a path counts from now on where the one that
// is kept and a new one, which is believed too, contradict each other.
func (s *Server) settle(found *record) *record {
	if found == nil {
		return nil
	}
	if kept := s.records.current(found.info.StorePath.HashPart()); kept != nil && s.outlives(kept.record, found) {
		return kept.record
	}
	return found
}

// outlives reports whether the record that is kept stays in spite of a new one.
// What is signed wins over what is not; else whoever came first does, because
// Nix may have it already. A cache may replace its own record, though, and a
// record whose cache is no longer asked gives way.
func (s *Server) outlives(kept, found *record) bool {
	if kept.info.Fingerprint() == found.info.Fingerprint() {
		return false
	}
	now := s.setup()
	keptSigned, foundSigned := now.keys.Check(kept.info) == nil, now.keys.Check(found.info) == nil
	if keptSigned != foundSigned {
		return keptSigned
	}
	return kept.upstream != found.upstream &&
		slices.ContainsFunc(now.upstreams, func(m *mirror) bool { return m.String() == kept.upstream })
}
