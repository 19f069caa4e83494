package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// NAT-PMP's port, and what its messages consist of (RFC 6886).
const (
	pmpPort = 5351

	pmpAddress = 0
	pmpUDP     = 1
	pmpTCP     = 2

	pmpAnswer      = 128 // added to the request's operation
	pmpUnsupported = 5
)

// mapPorts answers the home's hosts who ask the router for a port.
func (n *NAT) mapPorts() {
	var conn net.PacketConn
	err := inNamespace(n.Router.ns, func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(n.lab.t.Context(), "udp4", net.JoinHostPort(n.gateway, strconv.Itoa(pmpPort)))
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("lab: NAT-PMP: %v", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.answerPMP(conn)
	}()
	n.lab.t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
}

func (n *NAT) answerPMP(conn net.PacketConn) {
	started := time.Now()
	request := make([]byte, 64)
	for {
		size, from, err := conn.ReadFrom(request)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || size < 2 || request[0] != 0 {
			continue
		}
		answer := []byte{0, pmpAnswer + request[1], 0, 0}
		answer = binary.BigEndian.AppendUint32(answer, uint32(time.Since(started).Seconds()))
		switch op := request[1]; {
		case op == pmpAddress:
			outer := netip.MustParseAddr(n.Router.Addr).As4()
			answer = append(answer, outer[:]...)
		case (op == pmpUDP || op == pmpTCP) && size >= 12 && n.grant(op, request, from):
			// The outer port is the inner one, whatever was asked for.
			answer = append(answer, request[4], request[5], request[4], request[5])
			answer = append(answer, request[8:12]...)
		default:
			answer[3] = pmpUnsupported
		}
		_, _ = conn.WriteTo(answer, from) // Who gets none asks again.
	}
}

// grant maps a port to who asks for it.
func (n *NAT) grant(op byte, request []byte, from net.Addr) bool {
	udp, ok := from.(*net.UDPAddr)
	if !ok {
		return false
	}
	inner := binary.BigEndian.Uint16(request[4:])
	protocol := "udp"
	if op == pmpTCP {
		protocol = "tcp"
	}
	verb := "add"
	if binary.BigEndian.Uint32(request[8:]) == 0 {
		verb = "delete"
	}
	cmd := n.Router.Command(n.lab.Context(), "nft", verb, "element", "ip", "nat", "forwarded",
		fmt.Sprintf("{ %s . %d : %s . %d }", protocol, inner, udp.IP, inner))
	return cmd.Run() == nil || verb == "delete"
}
