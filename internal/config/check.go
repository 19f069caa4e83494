package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxNetworkName is the longest network name, in bytes. It becomes part of
// protocol IDs.
const maxNetworkName = 32

// maxSocketPath is the longest path of the control socket, in bytes: of the 107
// that a unix socket may have (unix(7)), one is for the name under which it is
// made.
const maxSocketPath = 106

func checkNetworkName(s string) error {
	if s == "" || len(s) > maxNetworkName || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("is not 1 to %d characters of a-z, 0-9 and -", maxNetworkName)
	}
	return nil
}

// CheckPrivateNetwork reports what is wrong with the name of a private network.
func CheckPrivateNetwork(name string) error {
	if name == PublicNetwork {
		return errors.New("is the network of everybody")
	}
	return checkNetworkName(name)
}

func checkAbsolute(s string) error {
	if !filepath.IsAbs(s) {
		return errors.New("is not an absolute path")
	}
	return nil
}

func checkSocket(s string) error {
	if len(s) > maxSocketPath {
		return fmt.Errorf("has %d bytes, and the path of a unix socket at most %d: set control.socket to a shorter one", len(s), maxSocketPath)
	}
	return checkAbsolute(s)
}

func checkStoreDir(s string) error {
	if s != nix.StoreDir {
		return fmt.Errorf("must be %s, because signatures are made over it; for a store that lies elsewhere set store.root or store.real_dir", nix.StoreDir)
	}
	return nil
}

func checkHostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("is not HOST:PORT")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

func checkHostName(s string) error {
	if s == "" || strings.ContainsAny(s, "/:@?#[]") {
		return errors.New("is not a host name")
	}
	return nil
}

func checkListenAddr(s string) error {
	addr, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return fmt.Errorf("is not a multiaddr such as /ip4/0.0.0.0/tcp/8461: %w", err)
	}
	if _, last := multiaddr.SplitLast(addr); last == nil || last.Protocol().Code != multiaddr.P_TCP && last.Protocol().Code != multiaddr.P_QUIC_V1 {
		return errors.New("does not end in /tcp/<port> or /udp/<port>/quic-v1")
	}
	return nil
}

// checkPeerAddr wants the peer ID in the address: without it anybody who
// answers there would do.
func checkPeerAddr(s string) error {
	addr, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return fmt.Errorf("is not a multiaddr such as /ip4/192.0.2.1/tcp/8461/p2p/<peer ID>: %w", err)
	}
	if _, last := multiaddr.SplitLast(addr); last == nil || last.Protocol().Code != multiaddr.P_P2P {
		return errors.New("does not end in /p2p/<peer ID>")
	}
	return nil
}

func checkPeerID(s string) error {
	if _, err := multiaddr.NewComponent("p2p", s); err != nil {
		return errors.New("is not a peer ID such as 12D3KooW…")
	}
	return nil
}

func checkPublicKey(s string) error {
	_, err := narinfo.ParsePublicKey(s)
	return err
}

func checkGlob(s string) error {
	if _, err := path.Match(s, ""); err != nil {
		return errors.New("is not a pattern of *, ?, [a-z] and characters")
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("is not an http:// or https:// URL")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return errors.New("has a query or a fragment")
	}
	return nil
}

// checkEndpoint wants the root of a server: the API's own path is added.
func checkEndpoint(s string) error {
	if err := checkURL(s); err != nil {
		return err
	}
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if path := strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/routing/v1"); path != "" {
		return fmt.Errorf("has the path %s, and only /routing/v1 may be one", path)
	}
	return nil
}
