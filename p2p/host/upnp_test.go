package host

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// gatewayDevice is a router of UPnP that refuses what it is told to.
type gatewayDevice struct {
	service string
	// control is the URL of the service.
	control string
	// taken are outer ports that lead elsewhere; permanent has it know no lifetimes.
	taken     map[string]bool
	permanent bool
	// padding makes its description longer.
	padding int

	mu sync.Mutex
	// mapped are the lifetimes of outer ports, such as "TCP 8461", by these.
	mapped map[string]string
}

func (g *gatewayDevice) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		fmt.Fprintf(w, `<?xml version="1.0" encoding="iso-8859-1"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<friendlyName>%s</friendlyName><deviceList><device><serviceList><service><serviceType>%s</serviceType><controlURL>%s</controlURL></service></serviceList></device></deviceList>
</device></root>`, strings.Repeat("x", g.padding), g.service, g.control)
		return
	}
	body, _ := io.ReadAll(r.Body)
	value := func(name string) string {
		if found := regexp.MustCompile("<New" + name + ">(.*)</New" + name + ">").FindSubmatch(body); found != nil {
			return string(found[1])
		}
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	action := r.Header.Get("SOAPAction")
	outer := value("Protocol") + " " + value("ExternalPort")
	answer := ""
	switch {
	case strings.Contains(action, "GetExternalIPAddress"):
		answer = "<NewExternalIPAddress>11.0.0.1</NewExternalIPAddress>"
	case strings.Contains(action, "DeletePortMapping"):
		delete(g.mapped, outer)
	case g.taken[value("ExternalPort")]:
		g.refuse(w, 718)
		return
	case g.permanent && value("LeaseDuration") != "0":
		g.refuse(w, onlyPermanent)
		return
	default:
		g.mapped[outer] = value("LeaseDuration")
	}
	name := strings.Trim(action[strings.Index(action, "#")+1:], `"`)
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%[1]sResponse xmlns:u="%[2]s">%[3]s</u:%[1]sResponse></s:Body></s:Envelope>`,
		name, g.service, answer)
}

func (g *gatewayDevice) refuse(w http.ResponseWriter, code int) {
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>
<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
}

// open has the router be found and map TCP port 8461, and returns the outer port.
func (g *gatewayDevice) open(t *testing.T) (*upnp, uint16, error) {
	t.Helper()
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	g.mapped = make(map[string]string)
	location, err := url.Parse(server.URL + "/root.xml")
	if err != nil {
		t.Fatal(err)
	}
	home := netip.MustParseAddr("127.0.0.1")
	u, err := openUPnP(t.Context(), router{gateway: home, own: home}, location)
	if err != nil {
		return nil, 0, err
	}
	outer, err := u.open(t.Context(), port{"tcp", 8461}, 8461)
	return u, outer, err
}

// Whatever routers answer by UPnP, a port is mapped where they let one.
func TestUPnPMapsPorts(t *testing.T) {
	for name, tt := range map[string]struct {
		device *gatewayDevice
		same   bool
		lease  string
	}{
		"version 1":           {&gatewayDevice{service: "urn:schemas-upnp-org:service:WANIPConnection:1"}, true, "300"},
		"version 2":           {&gatewayDevice{service: "urn:schemas-upnp-org:service:WANIPConnection:2"}, true, "300"},
		"dialled":             {&gatewayDevice{service: "urn:schemas-upnp-org:service:WANPPPConnection:1"}, true, "300"},
		"knows no lifetimes":  {&gatewayDevice{service: "urn:schemas-upnp-org:service:WANIPConnection:1", permanent: true}, true, "0"},
		"port leads to other": {&gatewayDevice{service: "urn:schemas-upnp-org:service:WANIPConnection:1", taken: map[string]bool{"8461": true}}, false, "300"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.device.control = "/control"
			u, outer, err := tt.device.open(t)
			if err != nil {
				t.Fatal(err)
			}
			if (outer == 8461) != tt.same || outer < 8461 {
				t.Errorf("mapped port %d", outer)
			}
			if got := tt.device.mapped[fmt.Sprintf("TCP %d", outer)]; got != tt.lease {
				t.Errorf("the router has %v, want port %d for %s s", tt.device.mapped, outer, tt.lease)
			}
			if err := u.shut(t.Context(), port{"tcp", 8461}, outer); err != nil || len(tt.device.mapped) > 0 {
				t.Errorf("given back, the router has %v, %v", tt.device.mapped, err)
			}
		})
	}
}

// A router that maps nothing, leads elsewhere or never ends is none, and nobody but
// the router is asked.
func TestUPnPOfHostileRouters(t *testing.T) {
	elsewhere := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("somebody else was asked")
	}))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere.Listener = listener
	elsewhere.Start()
	defer elsewhere.Close()
	const service = "urn:schemas-upnp-org:service:WANIPConnection:1"
	for name, device := range map[string]*gatewayDevice{
		"another service": {service: "urn:schemas-upnp-org:service:Layer3Forwarding:1", control: "/control"},
		"leads elsewhere": {service: service, control: elsewhere.URL},
		"is no end to":    {service: service, control: "/control", padding: maxUPnPAnswer},
		"has no service":  {service: "", control: ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, outer, err := device.open(t); err == nil {
				t.Errorf("mapped port %d", outer)
			}
		})
	}
}
