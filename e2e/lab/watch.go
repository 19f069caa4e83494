package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// watchRules has the kernel of a host take note of every address that is dialled
// from it: of the first packet of every connection that begins there.
const watchRules = `table inet watch {
  set dialled4 { type ipv4_addr . inet_service; flags dynamic; size 65535; }
  set dialled6 { type ipv6_addr . inet_service; flags dynamic; size 65535; }
  chain out {
    type filter hook output priority 0;
    ct direction original ct state new meta l4proto { tcp, udp } jump note
  }
  chain note {
    meta nfproto ipv4 add @dialled4 { ip daddr . th dport }
    meta nfproto ipv6 add @dialled6 { ip6 daddr . th dport }
  }
}
`

// Watch begins to take note of what is dialled from the host.
func (h *Host) Watch() {
	h.lab.t.Helper()
	cmd := h.Command(h.lab.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(watchRules)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.lab.t.Fatalf("lab: nft: %v\n%s", err, out)
	}
}

// Dialled returns the addresses that were dialled from the host since Watch,
// each once.
func (h *Host) Dialled() []netip.AddrPort {
	h.lab.t.Helper()
	var all []netip.AddrPort
	for _, set := range []string{"dialled4", "dialled6"} {
		out, err := h.Command(h.lab.Context(), "nft", "-j", "list", "set", "inet", "watch", set).Output()
		if err != nil {
			h.lab.t.Fatalf("lab: nft: %v", err)
		}
		addrs, err := parseSet(out)
		if err != nil {
			h.lab.t.Fatalf("lab: nft: %v", err)
		}
		all = append(all, addrs...)
	}
	return all
}

// parseSet reads a set of addresses and ports as nft lists it.
func parseSet(text []byte) ([]netip.AddrPort, error) {
	var listing struct {
		NFTables []struct {
			Set *struct {
				Elem []struct {
					Concat [2]json.RawMessage `json:"concat"`
				} `json:"elem"`
			} `json:"set"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(text, &listing); err != nil {
		return nil, err
	}
	var addrs []netip.AddrPort
	for _, item := range listing.NFTables {
		if item.Set == nil {
			continue
		}
		for _, e := range item.Set.Elem {
			var ip netip.Addr
			var port uint16
			if err := json.Unmarshal(e.Concat[0], &ip); err != nil {
				return nil, fmt.Errorf("address %s: %w", e.Concat[0], err)
			}
			if err := json.Unmarshal(e.Concat[1], &port); err != nil {
				return nil, fmt.Errorf("port %s: %w", e.Concat[1], err)
			}
			addrs = append(addrs, netip.AddrPortFrom(ip, port))
		}
	}
	return addrs, nil
}
