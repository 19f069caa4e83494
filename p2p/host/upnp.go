package host

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/huin/goupnp"
	igd "github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

const (
	// ssdpPort is where devices of UPnP are asked who they are, and ssdpGroup where
	// all of the local network are.
	ssdpPort  = 1900
	ssdpGroup = "239.255.255.250"
	// upnpPatience is how long the router is waited for, which has a second to answer
	// in (MX, below); it is asked once more after upnpRepeat, as packets are lost.
	upnpPatience = 2500 * time.Millisecond
	upnpRepeat   = time.Second
	// maxLocations bounds the devices of one router that are looked at: some have
	// half a dozen.
	maxLocations = 8
	// maxUPnPAnswer bounds what a router says, in bytes. Descriptions are some 10 KB.
	maxUPnPAnswer = 256 << 10
	// upnpTries is how many outer ports a router is asked for where others have them,
	// of which all but the first are random ones from minOuter on.
	upnpTries = 3
	minOuter  = 10_000
)

// onlyPermanent is the error of routers that know no lifetimes of mappings.
const onlyPermanent = 725

// upnpTargets are what routers answer to: devices of version 1, as all that are later
// do (UPnP Device Architecture 1.1, section 1.3.2), but for some, and for those that
// answer for a service alone.
var upnpTargets = []string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
	igd.URN_WANIPConnection_1,
}

// upnp is a router that is an Internet Gateway Device.
type upnp struct {
	service upnpService
	// own is the address of this machine to map to.
	own string
	// permanent says that the router knows no lifetimes.
	permanent bool
}

// upnpService is the service of such a router that maps ports, in any version.
type upnpService interface {
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	AddPortMappingCtx(ctx context.Context, remote string, outer uint16, protocol string, inner uint16, client string, enabled bool, description string, seconds uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, outer uint16, protocol string) error
	GetServiceClient() *goupnp.ServiceClient
}

var _ mapper = (*upnp)(nil)

// findUPnP looks for UPnP at the gateway alone: what another device of the local
// network says of itself is not believed, and what it maps would not come back
// through it.
func findUPnP(ctx context.Context, r router) (mapper, error) {
	ctx, cancel := context.WithTimeout(ctx, upnpPatience+requestTimeout)
	defer cancel()
	var found *upnp
	err := searchUPnP(ctx, r, func(location *url.URL) bool {
		var err error
		found, err = openUPnP(ctx, r, location)
		return err == nil
	})
	if err != nil {
		return nil, fmt.Errorf("UPnP: %w", err)
	}
	return found, nil
}

// searchUPnP calls try for where the router's devices are described, until it returns
// true.
func searchUPnP(ctx context.Context, r router, try func(location *url.URL) bool) error {
	conn, err := new(net.ListenConfig).ListenPacket(ctx, "udp4", netip.AddrPortFrom(r.own, 0).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	begin := time.Now()
	seen := make(map[string]bool)
	for asked := 0; ; {
		if asked < 2 && time.Since(begin) >= time.Duration(asked)*upnpRepeat {
			askUPnP(conn, r.gateway)
			asked++
		}
		until := begin.Add(upnpPatience)
		if asked < 2 {
			until = begin.Add(upnpRepeat)
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return err
		}
		location, err := readLocation(conn, r.gateway)
		switch {
		case errors.Is(err, net.ErrClosed):
			return ctx.Err()
		case err != nil && time.Since(begin) >= upnpPatience:
			return errors.New("the router does not answer")
		case err != nil || seen[location.String()] || len(seen) == maxLocations:
			continue
		}
		seen[location.String()] = true
		if try(location) {
			return nil
		}
	}
}

// askUPnP asks who is there. The router is asked by its own address too, for the sake
// of a firewall on this machine: that lets in what comes back from where a packet
// went, but not what one machine of a group says.
func askUPnP(conn net.PacketConn, gateway netip.Addr) {
	for _, to := range []netip.Addr{gateway, netip.MustParseAddr(ssdpGroup)} {
		for _, target := range upnpTargets {
			question := "M-SEARCH * HTTP/1.1\r\nHOST: " + ssdpGroup + ":" + strconv.Itoa(ssdpPort) +
				"\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + target + "\r\n\r\n"
			// What cannot be sent is not answered.
			_, _ = conn.WriteTo([]byte(question), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, ssdpPort)))
		}
	}
}

// readLocation reads an answer, which is an error if it is not one of the gateway.
func readLocation(conn net.PacketConn, gateway netip.Addr) (*url.URL, error) {
	packet := make([]byte, 2_048)
	size, from, err := conn.ReadFrom(packet)
	if err != nil {
		return nil, err
	}
	if udp, ok := from.(*net.UDPAddr); !ok || udp.AddrPort().Addr().Unmap() != gateway {
		return nil, fmt.Errorf("an answer from %s, which is not the router", from)
	}
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(packet[:size])), nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return answer.Location()
}

// openUPnP returns the router whose device is described there, if that maps ports.
func openUPnP(ctx context.Context, r router, location *url.URL) (*upnp, error) {
	client := routerClient(r.gateway)
	root, err := describe(ctx, client, location)
	if err != nil {
		return nil, err
	}
	for _, service := range upnpServices(root, location) {
		service.GetServiceClient().SOAPClient.HTTPClient = client
		found := &upnp{service: service, own: r.own.String()}
		if _, err := found.outerAddr(ctx); err == nil {
			return found, nil
		}
	}
	return nil, errors.New("the router maps no ports")
}

// upnpServices returns the services of a device that map ports, the best first.
func upnpServices(root *goupnp.RootDevice, location *url.URL) []upnpService {
	var services []upnpService
	// An error says that there is none.
	two, _ := igd.NewWANIPConnection2ClientsFromRootDevice(root, location)
	for _, s := range two {
		services = append(services, s)
	}
	one, _ := igd.NewWANIPConnection1ClientsFromRootDevice(root, location)
	for _, s := range one {
		services = append(services, s)
	}
	dialled, _ := igd.NewWANPPPConnection1ClientsFromRootDevice(root, location)
	for _, s := range dialled {
		services = append(services, s)
	}
	return services[:min(len(services), maxLocations)]
}

// describe fetches the description of a device.
func describe(ctx context.Context, client http.Client, location *url.URL) (*goupnp.RootDevice, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", location, answer.Status)
	}
	decoder := xml.NewDecoder(answer.Body)
	decoder.DefaultSpace = goupnp.DeviceXMLNamespace
	// What is of interest is ASCII in all that routers use.
	decoder.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	root := new(goupnp.RootDevice)
	if err := decoder.Decode(root); err != nil {
		return nil, err
	}
	base := location
	if root.URLBaseStr != "" {
		if base, err = url.Parse(root.URLBaseStr); err != nil {
			return nil, err
		}
	}
	root.SetURLBase(base)
	return root, nil
}

// routerClient is a client of the router and of nobody else, whatever addresses that
// names, which reads no more than maxUPnPAnswer.
func routerClient(gateway netip.Addr) http.Client {
	return http.Client{Timeout: requestTimeout, Transport: bounded{&http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if host, _, err := net.SplitHostPort(addr); err != nil || host != gateway.String() {
				return nil, fmt.Errorf("%s is not the router", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}}}
}

// bounded reads no more than maxUPnPAnswer of an answer.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(request *http.Request) (*http.Response, error) {
	answer, err := b.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxUPnPAnswer), answer.Body}
	return answer, nil
}

func (u *upnp) outerAddr(ctx context.Context) (netip.Addr, error) {
	text, err := u.service.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddr(text)
	if err == nil && !addr.Is4() {
		err = fmt.Errorf("the router's outer address is %s", addr)
	}
	return addr, err
}

func (u *upnp) open(ctx context.Context, p port, outer uint16) (uint16, error) {
	for try := 1; ; try++ {
		err := u.add(ctx, p, outer)
		var refused *soap.SOAPFaultError
		switch {
		case err == nil:
			return outer, nil
		case !errors.As(err, &refused) || try == upnpTries:
			return 0, err
		case refused.Detail.UPnPError.Errorcode == onlyPermanent && !u.permanent:
			u.permanent = true
		default:
			outer = minOuter + rand.N[uint16](1<<16-1-minOuter)
		}
	}
}

func (u *upnp) add(ctx context.Context, p port, outer uint16) error {
	seconds := uint32(portLifetime.Seconds())
	if u.permanent {
		seconds = 0
	}
	return u.service.AddPortMappingCtx(ctx, "", outer, strings.ToUpper(p.protocol), p.number, u.own, true, "nar-p2p", seconds)
}

func (u *upnp) shut(ctx context.Context, p port, outer uint16) error {
	return u.service.DeletePortMappingCtx(ctx, "", outer, strings.ToUpper(p.protocol))
}
