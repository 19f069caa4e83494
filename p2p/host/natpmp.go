package host

import (
	"context"
	"net/netip"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
)

// pmpTimeout bounds one question, which cannot be broken off. A router that speaks
// NAT-PMP answers in milliseconds.
const pmpTimeout = 2 * time.Second

// pmp is a router that speaks NAT-PMP (RFC 6886).
type pmp struct{ *natpmp.Client }

var _ mapper = pmp{}

// findPMP asks the gateway, which is where NAT-PMP is.
func findPMP(_ context.Context, r router) (mapper, error) {
	router := pmp{natpmp.NewClientWithTimeout(r.gateway.AsSlice(), pmpTimeout)}
	if _, err := router.GetExternalAddress(); err != nil {
		return nil, err
	}
	return router, nil
}

func (r pmp) outerAddr(context.Context) (netip.Addr, error) {
	outer, err := r.GetExternalAddress()
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4(outer.ExternalIPAddress), nil
}

func (r pmp) open(_ context.Context, p port, outer uint16) (uint16, error) {
	got, err := r.AddPortMapping(p.protocol, int(p.number), int(outer), int(portLifetime.Seconds()))
	if err != nil {
		return 0, err
	}
	return got.MappedExternalPort, nil
}

func (r pmp) shut(ctx context.Context, p port, _ uint16) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := r.AddPortMapping(p.protocol, int(p.number), 0, 0)
	return err
}
