package p2p

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
)

func TestNAT(t *testing.T) {
	var s outlook
	for _, test := range []struct {
		transport network.NATTransportProtocol
		device    network.NATDeviceType
		want      NAT
	}{
		{network.NATTransportUDP, network.NATDeviceTypeUnknown, ""},
		{network.NATTransportTCP, network.NATDeviceTypeEndpointDependent, AnyPort},
		{network.NATTransportUDP, network.NATDeviceTypeEndpointIndependent, SamePort},
		{network.NATTransportUDP, network.NATDeviceTypeEndpointDependent, AnyPort},
		{network.NATTransportUDP, network.NATDeviceTypeUnknown, AnyPort},
	} {
		s.hear(event.EvtNATDeviceTypeChanged{TransportProtocol: test.transport, NatDeviceType: test.device})
		if got := s.nat(); got != test.want {
			t.Errorf("after %+v: %q", test, got)
		}
	}
}
