package substituter

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/address"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
)

// refuseTime is how long a record stays refused after its content has turned
// out not to be what its content address says.
const refuseTime = time.Hour

// claim is what an unsigned record says: that this is the NAR of the path.
type claim struct {
	part nix.HashPart
	hash nix.NARHash
}

func claimOf(info *narinfo.Info) claim { return claim{info.StorePath.HashPart(), info.NARHash} }

// believe returns nil if a record is to be believed: because of what it is, or,
// coming from an upstream, on condition that its content is checked (proof).
func (s *Server) believe(info *narinfo.Info, upstream string) error {
	err := s.setup().keys.Check(info)
	if err == nil || upstream == "" || !trust.Addressed(info) {
		return err
	}
	if _, refused := s.refused.get(claimOf(info)); refused {
		return fmt.Errorf("%w, and its content was not what its content address says", err)
	}
	return nil
}

// proof returns what a record's content is still to be checked against, beside
// the NAR hash, before a client has all of it; nil for nothing. It is found out
// anew each time, from the record alone.
func (s *Server) proof(r *record) (*address.Check, error) {
	if s.setup().keys.Check(r.info) == nil {
		return nil, nil
	}
	if err := s.believe(r.info, r.upstream); err != nil {
		return nil, err
	}
	return address.NewCheck(r.info)
}

// refuse remembers that a record was wrong, so that Nix gets neither it nor its
// NAR for a while and goes to its next substituter.
func (s *Server) refuse(r *record) {
	s.refused.put(claimOf(r.info), struct{}{}, refuseTime)
	s.records.memory.drop(r.info.StorePath.HashPart())
	s.log.Warn("unsigned record refused: its content is not what its content address says",
		zap.Stringer("storePath", r.info.StorePath), zap.Stringer("narHash", r.info.NARHash),
		zap.String("contentAddress", r.info.CA), zap.String("upstream", r.upstream))
}
