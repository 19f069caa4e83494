package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
)

// upnp is what many home routers run, miniupnpd, on a router of the lab: an Internet
// Gateway Device of UPnP, and neither NAT-PMP nor PCP.
type upnp struct {
	lab    *Lab
	router *Host
	config string
	cmd    *exec.Cmd
	said   bytes.Buffer
}

// upnpRules is where miniupnpd puts the ports that it maps. What is mapped gets
// through the router's own filter.
const upnpRules = `table inet upnp {
  chain pre {
    type nat hook prerouting priority dstnat;
    jump prerouting_miniupnpd
  }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain miniupnpd { }
}
`

// A router has a UUID to be told apart by, which those of the lab need not be.
const upnpConfig = `ext_ifname=eth0
listening_ip=eth1
enable_upnp=yes
enable_natpmp=no
ipv6_disable=yes
secure_mode=yes
upnp_table_name=upnp
upnp_nat_table_name=upnp
uuid=6f0d2c38-0d9e-4d4c-9f0e-000000000001
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`

// runUPnP starts miniupnpd on the router.
func (n *NAT) runUPnP() {
	n.lab.t.Helper()
	n.Router.nft(upnpRules)
	n.upnp = &upnp{lab: n.lab, router: n.Router, config: n.lab.File("upnp-"+n.Router.ns, upnpConfig)}
	n.upnp.start()
	n.lab.t.Cleanup(n.upnp.stop)
}

func (u *upnp) start() {
	u.lab.t.Helper()
	pid := filepath.Join(filepath.Dir(u.config), "pid-"+u.router.ns)
	_ = os.Remove(pid) // Of one that was killed, which would keep it from starting.
	u.cmd = u.router.Command(context.Background(), "miniupnpd", "-d", "-f", u.config, "-P", pid)
	u.cmd.Stdout, u.cmd.Stderr = &u.said, &u.said
	if err := u.cmd.Start(); err != nil {
		u.lab.t.Fatalf("lab: UPnP: %v", err)
	}
	u.lab.WaitFor("UPnP on the router", func() bool {
		out, err := u.router.Command(u.lab.Context(), "ss", "-Hlun", "sport", "= :1900").Output()
		return err == nil && len(out) > 0
	})
}

func (u *upnp) stop() {
	_ = syscall.Kill(-u.cmd.Process.Pid, syscall.SIGKILL) // It may have ended.
	if err := u.cmd.Wait(); u.lab.t.Failed() && !errors.Is(err, context.Canceled) {
		u.lab.t.Logf("UPnP of %s: %v\n%s", u.router.ns, err, u.said.String())
	}
}

// Reboot makes the router forget the ports that it was asked for by UPnP, for a
// daemon that starts anew, at another port than before.
func (n *NAT) Reboot() {
	n.lab.t.Helper()
	n.upnp.stop()
	n.Router.nft("flush chain inet upnp prerouting_miniupnpd\nflush chain inet upnp miniupnpd\n")
	n.upnp.start()
}

// mappedPort is how nft writes down a mapped port.
var mappedPort = regexp.MustCompile(`th dport (\d+) dnat ip to (\S+)`)

// Mapped returns the ports that were asked for by UPnP, such as "8461 to
// 192.168.1.1:8461".
func (n *NAT) Mapped() []string {
	n.lab.t.Helper()
	out, err := n.Router.Command(n.lab.Context(), "nft", "list", "chain", "inet", "upnp", "prerouting_miniupnpd").Output()
	if err != nil {
		n.lab.t.Fatalf("lab: UPnP: %v", err)
	}
	var ports []string
	for _, match := range mappedPort.FindAllStringSubmatch(string(out), -1) {
		ports = append(ports, match[1]+" to "+match[2])
	}
	return ports
}
