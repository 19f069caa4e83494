package control

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Contacts is what a Node lets its owner do with single peers.
type Contacts interface {
	// Connect connects with a peer, at these addresses or such as are known.
	Connect(ctx context.Context, info peer.AddrInfo) error
	// Ping measures one round trip.
	Ping(ctx context.Context, p peer.ID) (time.Duration, error)
	// Bench fetches up to so many bytes from a peer and throws them away.
	Bench(ctx context.Context, p peer.ID, size int64) (*Bench, error)
	// Ban is until a time or, if that is zero, until Unban, which reports whether
	// there was a ban.
	Ban(ctx context.Context, p peer.ID, until time.Time) error
	Unban(ctx context.Context, p peer.ID) (bool, error)
	Bans() ([]Ban, error)
}

// ConnectRequest names a peer to connect with, by a multiaddr that ends in its
// peer ID, or by that alone where the node knows an address.
type ConnectRequest struct {
	Address string `json:"address"`
}

// PingRequest names a peer to be asked for a sign of life.
type PingRequest struct {
	Peer string `json:"peer"`
}

// PingResponse is how long one round trip took.
type PingResponse struct {
	Seconds float64 `json:"seconds"`
}

// BenchRequest names a peer whose rate is to be measured.
type BenchRequest struct {
	Peer string `json:"peer"`
	// Bytes is how much to fetch at most; 0 is 16 MiB.
	Bytes int64 `json:"bytes,omitempty"`
}

// Bench is how fast a peer is, over one stream.
type Bench struct {
	Peer string `json:"peer"`
	// NARHash is that of the NAR of which a part was fetched.
	NARHash string `json:"narHash"`
	// Via is "lan", "direct" or "relay".
	Via string `json:"via"`
	// RTTSeconds is the shortest of a few round trips, FirstByteSeconds the time from
	// the request to the first chunk, and Seconds that to the last.
	RTTSeconds       float64 `json:"rttSeconds"`
	FirstByteSeconds float64 `json:"firstByteSeconds"`
	Seconds          float64 `json:"seconds"`
	Bytes            int64   `json:"bytes"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
	// DownloadLimit is that of this node in bytes per second, which has bounded it;
	// absent where there is none. The peer's own is not known.
	DownloadLimit int64 `json:"downloadLimit,omitempty"`
}

// BanRequest names a peer with which the node is to have nothing to do.
type BanRequest struct {
	Peer string `json:"peer"`
	// Seconds is for how long; 0 is until it is taken back.
	Seconds int64 `json:"seconds,omitempty"`
}

// UnbanRequest names a peer that is to be banned no more.
type UnbanRequest struct {
	Peer string `json:"peer"`
}

// Ban is a peer that is banned.
type Ban struct {
	Peer string `json:"peer"`
	// Until is absent where the ban does not end by itself.
	Until time.Time `json:"until,omitzero"`
}

// pingTimeout bounds one ping together with the connecting before it.
const pingTimeout = 20 * time.Second

// maxBan is for how many seconds a peer may be banned: a hundred years.
const maxBan = 100 * 365 * 24 * 3600

// ParsePeer parses a peer ID, or a multiaddr that ends in one.
func ParsePeer(text string) (*peer.AddrInfo, error) {
	if len(text) > maxTarget {
		return nil, badRequest("the address of a peer is longer than %d bytes", maxTarget)
	}
	if id, err := peer.Decode(text); err == nil {
		return &peer.AddrInfo{ID: id}, nil
	}
	addr, err := multiaddr.NewMultiaddr(text)
	if err != nil {
		return nil, badRequest("%q is neither a peer ID such as 12D3KooW... nor a multiaddr such as /ip4/192.0.2.1/tcp/8461/p2p/12D3KooW...", text)
	}
	info, err := peer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		return nil, badRequest("%q does not end in /p2p/PEER-ID", text)
	}
	return info, nil
}

// forPeer reads a request into v and returns the peer that is named there.
func forPeer(r *http.Request, v any, named *string) (*peer.AddrInfo, error) {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return nil, badRequest("request: %v", err)
	}
	return ParsePeer(*named)
}

func connect(r *http.Request, node Contacts) (any, error) {
	var request ConnectRequest
	info, err := forPeer(r, &request, &request.Address)
	if err == nil {
		err = node.Connect(r.Context(), *info)
	}
	return struct{}{}, err
}

func pingPeer(r *http.Request, node Contacts) (any, error) {
	var request PingRequest
	info, err := forPeer(r, &request, &request.Peer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	took, err := node.Ping(ctx, info.ID)
	return PingResponse{Seconds: took.Seconds()}, err
}

// benchBytes is how much is fetched to measure a peer where nothing is said.
const benchBytes = 16 << 20

// MaxBench is how much is fetched to measure a peer at most, in bytes.
const MaxBench = 256 << 20

func benchPeer(r *http.Request, node Contacts) (any, error) {
	var request BenchRequest
	info, err := forPeer(r, &request, &request.Peer)
	switch {
	case err != nil:
		return nil, err
	case request.Bytes < 0 || request.Bytes > MaxBench:
		return nil, badRequest("%d bytes are not between 0 and %d", request.Bytes, int64(MaxBench))
	}
	return node.Bench(r.Context(), info.ID, cmp.Or(request.Bytes, benchBytes))
}

func ban(r *http.Request, node Contacts) (any, error) {
	var request BanRequest
	info, err := forPeer(r, &request, &request.Peer)
	switch {
	case err != nil:
		return nil, err
	case request.Seconds < 0 || request.Seconds > maxBan:
		return nil, badRequest("%d seconds are not between 0 and %d", request.Seconds, maxBan)
	}
	b := Ban{Peer: info.ID.String()}
	if request.Seconds > 0 {
		b.Until = time.Now().Add(time.Duration(request.Seconds) * time.Second).Round(time.Second).UTC()
	}
	return b, node.Ban(r.Context(), info.ID, b.Until)
}

func unban(r *http.Request, node Contacts) (any, error) {
	var request UnbanRequest
	info, err := forPeer(r, &request, &request.Peer)
	if err != nil {
		return nil, err
	}
	was, err := node.Unban(r.Context(), info.ID)
	if err == nil && !was {
		err = &Error{Status: http.StatusNotFound, Message: info.ID.String() + " is not banned"}
	}
	return struct{}{}, err
}

// Connect has the node connect with a peer; see ConnectRequest.
func (c *Client) Connect(ctx context.Context, address string) error {
	return c.get(ctx, http.MethodPost, "/v1/peers/connect", ConnectRequest{Address: address}, &struct{}{})
}

// Ping has the node measure one round trip to a peer.
func (c *Client) Ping(ctx context.Context, p peer.ID) (time.Duration, error) {
	var response PingResponse
	err := c.get(ctx, http.MethodPost, "/v1/peers/ping", PingRequest{Peer: p.String()}, &response)
	return time.Duration(response.Seconds * float64(time.Second)), err
}

// Bench has the node fetch up to so many bytes from a peer, and throw them away.
func (c *Client) Bench(ctx context.Context, p peer.ID, size int64) (*Bench, error) {
	b := &Bench{}
	return b, c.get(ctx, http.MethodPost, "/v1/peers/bench", BenchRequest{Peer: p.String(), Bytes: size}, b)
}

// Ban has the node have nothing to do with a peer, for a while or, if that is 0,
// until Unban.
func (c *Client) Ban(ctx context.Context, p peer.ID, duration time.Duration) (Ban, error) {
	var b Ban
	seconds := int64(math.Ceil(duration.Seconds()))
	err := c.get(ctx, http.MethodPost, "/v1/peers/ban", BanRequest{Peer: p.String(), Seconds: seconds}, &b)
	return b, err
}

// Unban takes a ban back.
func (c *Client) Unban(ctx context.Context, p peer.ID) error {
	return c.get(ctx, http.MethodPost, "/v1/peers/unban", UnbanRequest{Peer: p.String()}, &struct{}{})
}

// Bans asks who is banned.
func (c *Client) Bans(ctx context.Context) ([]Ban, error) {
	var bans []Ban
	err := c.get(ctx, http.MethodGet, "/v1/peers/banned", nil, &bans)
	return bans, err
}
