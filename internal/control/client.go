package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// ErrUnreachable says that no daemon answers.
var ErrUnreachable = errors.New("nar-p2pd is not reachable")

// ErrNotFound says that the cache does not have what was asked for.
var ErrNotFound = errors.New("not found")

// maxAnswer bounds every JSON answer but a stream, in bytes.
const maxAnswer = 16 << 20

// Client talks to one daemon.
type Client struct {
	http *http.Client
}

// NewClient returns a client for the first of the sockets at which a daemon
// answers.
func NewClient(sockets []string) *Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialAny(ctx, sockets) },
		// The bytes of a NAR are hashed as they come.
		DisableCompression: true,
	}
	return &Client{http: &http.Client{Transport: transport}}
}

// dialAny tries the sockets in turn. Where none answers, the error is
// ErrUnreachable, and of several reasons the first that is not a missing file.
func dialAny(ctx context.Context, sockets []string) (net.Conn, error) {
	var reason error
	for _, path := range sockets {
		conn, err := dial(ctx, path)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && reason == nil {
			reason = err
		}
	}
	switch {
	case reason == nil:
		reason = fmt.Errorf("no socket at %s", strings.Join(sockets, " or "))
	case errors.Is(reason, syscall.EINVAL):
		reason = fmt.Errorf("%w: the path of a unix socket has at most 107 bytes", reason)
	case errors.Is(reason, syscall.EACCES):
		reason = fmt.Errorf("%w: only its user and the group %s may", reason, Group)
	}
	return nil, fmt.Errorf("%w: %w", ErrUnreachable, reason)
}

// do sends a request and wants a 200.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var text io.Reader = http.NoBody
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, text)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		// What *url.Error adds is our own made-up URL.
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err
		}
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	return nil, errors.Join(readError(response), response.Body.Close())
}

func readError(response *http.Response) error {
	refusal := &Error{}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return err
	}
	if json.Unmarshal(text, refusal) != nil || refusal.Message == "" {
		refusal.Message = fmt.Sprintf("nar-p2pd answers %s", response.Status)
	}
	refusal.Status = response.StatusCode
	return refusal
}

// get decodes the JSON answer to a request into v.
func (c *Client) get(ctx context.Context, method, path string, body, v any) error {
	response, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	err = json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(v)
	if err != nil {
		err = fmt.Errorf("answer of nar-p2pd: %w", err)
	}
	return errors.Join(err, response.Body.Close())
}

// Status asks how the node is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var status Status
	err := c.get(ctx, http.MethodGet, "/v1/status", nil, &status)
	return status, err
}

// Config asks what the daemon runs with.
func (c *Client) Config(ctx context.Context) (Config, error) {
	var cfg Config
	err := c.get(ctx, http.MethodGet, "/v1/config", nil, &cfg)
	return cfg, err
}

// Reload has the daemon read its settings again.
func (c *Client) Reload(ctx context.Context) (*Reloaded, error) {
	told := &Reloaded{}
	return told, c.get(ctx, http.MethodPost, "/v1/config/reload", nil, told)
}

// Metrics asks for the node's metrics, each summed up over its labels.
func (c *Client) Metrics(ctx context.Context) (map[string]float64, error) {
	response, err := c.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(response.Body, maxAnswer))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("metrics of nar-p2pd: %w", err)
	}
	sums := make(map[string]float64, len(families))
	for name, family := range families {
		for _, m := range family.GetMetric() {
			sums[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
	}
	return sums, nil
}

// Peers asks for the connected peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	var peers []Peer
	err := c.get(ctx, http.MethodGet, "/v1/peers", nil, &peers)
	return peers, err
}

// Provide has paths shared and announced.
func (c *Client) Provide(ctx context.Context, paths []nix.StorePath) ([]PathResult, error) {
	return c.paths(ctx, "/v1/provide", paths)
}

// Withdraw has paths shared no more.
func (c *Client) Withdraw(ctx context.Context, paths []nix.StorePath) ([]PathResult, error) {
	return c.paths(ctx, "/v1/withdraw", paths)
}

func (c *Client) paths(ctx context.Context, endpoint string, paths []nix.StorePath) ([]PathResult, error) {
	var results []PathResult
	for some := range slices.Chunk(paths, maxPaths) {
		var response PathsResponse
		if err := c.get(ctx, http.MethodPost, endpoint, newPathsRequest(some), &response); err != nil {
			return results, err
		}
		results = append(results, response.Results...)
	}
	return results, nil
}

func newPathsRequest(paths []nix.StorePath) PathsRequest {
	return PathsRequest{Paths: textsOf(paths)}
}

// Explain asks what is known of a store path, which may be given by its hash
// part, and why a request for it would hit or miss.
func (c *Client) Explain(ctx context.Context, target string) (*explain.Path, error) {
	told := &explain.Path{}
	err := c.get(ctx, http.MethodGet, "/v1/explain?target="+url.QueryEscape(target), nil, told)
	return told, err
}

// Find looks for a target, in any form that ParseTarget knows, and calls f for
// every event but the last.
func (c *Client) Find(ctx context.Context, target string, f func(FindEvent) error) error {
	response, err := c.do(ctx, http.MethodGet, "/v1/find?target="+url.QueryEscape(target), nil)
	if err != nil {
		return err
	}
	return errors.Join(readEvents(response.Body, f), response.Body.Close())
}

func readEvents(r io.Reader, f func(FindEvent) error) error {
	lines := json.NewDecoder(r)
	for {
		var event FindEvent
		if err := lines.Decode(&event); err != nil {
			return fmt.Errorf("answer of nar-p2pd: %w", noEOF(err))
		}
		switch {
		case event.Done:
			return nil
		case event.Error != nil:
			return event.Error
		}
		if err := f(event); err != nil {
			return err
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Narinfo asks the node's substituter for a record. The error is ErrNotFound
// where there is none.
func (c *Client) Narinfo(ctx context.Context, part nix.HashPart) (*narinfo.Info, error) {
	response, err := c.cache(ctx, part.String()+".narinfo")
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, narinfo.MaxSize+1))
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	return narinfo.Parse(text)
}

// NAR asks the node's substituter for the NAR of a record. Its bytes are
// unverified, and cut short where the node loses the NAR.
func (c *Client) NAR(ctx context.Context, info *narinfo.Info) (io.ReadCloser, error) {
	response, err := c.cache(ctx, narinfo.NARURL(info.StorePath.HashPart(), info.NARHash))
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

func (c *Client) cache(ctx context.Context, path string) (*http.Response, error) {
	response, err := c.do(ctx, http.MethodGet, "/cache/"+path, nil)
	if refusal, ok := errors.AsType[*Error](err); ok && refusal.Status == http.StatusNotFound {
		return nil, ErrNotFound
	}
	return response, err
}
