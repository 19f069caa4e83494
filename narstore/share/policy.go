package share

import (
	"errors"
	"fmt"
	"path"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Policy says which store paths may leave the machine. The zero Policy lets
// nothing out. It must not change once it is in use; Catalog.Apply puts another
// one in its place.
type Policy struct {
	// Keys are the keys of which one must have signed a path.
	Keys []narinfo.PublicKey
	// Exclude holds patterns in the syntax of path.Match. A path whose name
	// (without its hash part) matches one of them is neither shared nor asked
	// for.
	Exclude []string
	// MaxNARSize is the largest NAR that is shared, in bytes; 0 means
	// chunk.MaxNARSize, the largest that peers exchange at all.
	MaxNARSize int64
}

// Validate reports a malformed pattern in Exclude. Check and Askable refuse
// everything where there is one.
func (p *Policy) Validate() error {
	for _, pattern := range p.Exclude {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("share: exclusion %q: %w", pattern, err)
		}
	}
	return nil
}

// Check returns nil if the path may leave the machine, or else the reason why
// not. The reason is for the owner and must not reach a peer.
func (p *Policy) Check(info *narstore.PathInfo) error {
	if p.MaxNARSize > 0 && info.NARSize > p.MaxNARSize {
		return fmt.Errorf("share: %s: its NAR of %d bytes is larger than the limit of %d", info.Path, info.NARSize, p.MaxNARSize)
	}
	_, err := p.record(info)
	return err
}

// Askable reports whether strangers may be asked about the NAR of this record.
// Asking is telling, so it is the rule of Check; only the size does not count,
// because it limits what this node uploads and is no secret.
func (p *Policy) Askable(info *narinfo.Info) bool {
	_, err := p.signatures(info)
	return err == nil
}

// record returns what peers may read of a path, or the reason why it must not
// leave the machine. Signatures of other keys stay at home, since the name of
// a key tells who made it; so does the recipe of a local build, for which
// nobody has signed.
func (p *Policy) record(info *narstore.PathInfo) (*narinfo.Info, error) {
	limit := int64(chunk.MaxNARSize)
	if p.MaxNARSize > 0 {
		limit = min(limit, p.MaxNARSize)
	}
	if info.NARSize > limit {
		return nil, fmt.Errorf("share: %s: its NAR of %d bytes is larger than the limit of %d", info.Path, info.NARSize, limit)
	}
	record := info.Narinfo()
	signatures, err := p.signatures(record)
	if err != nil {
		return nil, fmt.Errorf("share: %s: %w", info.Path, err)
	}
	record.Signatures = signatures
	if info.Ultimate {
		record.Deriver = nix.StorePath{}
	}
	return record, nil
}

// signatures returns the signatures that make a path public: at least one.
func (p *Policy) signatures(info *narinfo.Info) ([]narinfo.Signature, error) {
	if info.StorePath.IsDerivation() {
		return nil, errors.New("it is a derivation")
	}
	for _, pattern := range p.Exclude {
		match, err := path.Match(pattern, info.StorePath.Name())
		if err != nil {
			return nil, fmt.Errorf("exclusion %q: %w", pattern, err)
		}
		if match {
			return nil, fmt.Errorf("its name is excluded by %q", pattern)
		}
	}
	// Last, because it alone costs time: 60 microseconds a signature.
	valid := info.ValidSignatures(p.Keys)
	if len(valid) == 0 {
		return nil, errors.New("no key whose paths may be shared has validly signed it")
	}
	return valid, nil
}
