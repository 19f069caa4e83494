package delegated

import (
	"context"
	"fmt"
	"iter"
	"net/http"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// maxEndpoints bounds the endpoints: all are asked about everything.
const maxEndpoints = 8

// Config says whom to ask.
type Config struct {
	// Endpoints are the URLs of servers, with or without /routing/v1 at the end.
	Endpoints []string
	// Network is the name of a private network, whose endpoints alone are asked.
	// Empty: the public one.
	Network string
	// Addresses filters the addresses of providers: what it leaves may be dialled.
	// Beyond that, on the public network only an endpoint on the local network may
	// name addresses that are not public. Nil: all.
	Addresses func([]ma.Multiaddr) []ma.Multiaddr
	// UserAgent is told to the endpoints.
	UserAgent string
}

var _ routing.Router = (*Client)(nil)

// Client asks endpoints who provides a key. Its methods are safe for concurrent
// use.
type Client struct {
	endpoints []*endpoint
	all       routing.Router
	transport *http.Transport
}

// NewClient returns a client. Close it.
func NewClient(cfg *Config, log *zap.Logger) (*Client, error) {
	if n := len(cfg.Endpoints); n == 0 || n > maxEndpoints {
		return nil, fmt.Errorf("delegated routing: %d endpoints, want 1 to %d", n, maxEndpoints)
	}
	c := &Client{transport: newTransport()}
	var routers []routing.Router
	for _, text := range cfg.Endpoints {
		e, err := newEndpoint(text, cfg, c.transport, log.Named("delegated"))
		if err != nil {
			return nil, fmt.Errorf("delegated routing: %w", err)
		}
		c.endpoints = append(c.endpoints, e)
		routers = append(routers, e)
	}
	c.all = routing.Merge(routers...)
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Size is the number of endpoints that can be asked.
func (c *Client) Size() int { return c.all.Size() }

// Status says how the endpoints are, in the order of the configuration.
func (c *Client) Status() []EndpointStatus {
	all := make([]EndpointStatus, len(c.endpoints))
	for i, e := range c.endpoints {
		all[i] = e.status()
	}
	return all
}

// FindProviders asks all endpoints at once who provides the key: at most
// routing.MaxProviders peers of each as they tell, until ctx ends. Those whose addresses
// are not known have none.
func (c *Client) FindProviders(ctx context.Context, key cid.Cid) iter.Seq[peer.AddrInfo] {
	return c.all.FindProviders(ctx, key)
}
