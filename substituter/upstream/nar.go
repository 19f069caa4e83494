package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/klauspost/readahead"

	"github.com/nar-p2p/nar-p2p/internal/decompress"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

const (
	// A compressed NAR is read ahead of its decoder, by up to aheadPieces of aheadPiece
	// bytes: decoders are about as fast as lines are, and TCP acknowledges late what
	// nobody has read, and so sends slowly. A piece is handed on when it is full.
	aheadPiece  = 4 << 10
	aheadPieces = 256
	// maxOverhead is what headers may add to a small file, in bytes.
	maxOverhead = 64 << 10
)

// OpenNAR returns the plain bytes of the NAR that the cache's own record info
// describes, from offset on and at most up to NARSize. An uncompressed NAR is
// asked for by range; of a compressed one the bytes before offset are read and
// dropped before OpenNAR returns.
func (c *Client) OpenNAR(ctx context.Context, info *narinfo.Info, offset int64) (io.ReadCloser, error) {
	s, err := c.openNAR(ctx, info, offset)
	if err != nil {
		return nil, fmt.Errorf("upstream: %s: NAR of %s: %w", c, info.StorePath.BaseName(), err)
	}
	return s, nil
}

func (c *Client) openNAR(ctx context.Context, info *narinfo.Info, offset int64) (*stream, error) {
	if !decompress.Knows(info.Compression) {
		return nil, fmt.Errorf("compression %.40q is not known", info.Compression)
	}
	u, err := c.narURL(info.URL)
	if err != nil {
		return nil, err
	}
	from := int64(0)
	if info.Compression == decompress.None {
		from = offset
	}
	s, err := c.open(ctx, request{u, from, "identity"}, info.NARSize)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.readAhead(info), s.decode(info.Compression)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if _, err := io.CopyN(io.Discard, s.plain, offset-s.offset); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.plain = io.LimitReader(s.plain, info.NARSize-offset)
	return s, nil
}

// narURL joins the URL of a record to the cache's address as Nix does: a
// relative one by concatenation, an absolute one as it stands.
func (c *Client) narURL(text string) (*url.URL, error) {
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		if u.User != nil {
			return nil, errors.New("credentials in the URL of a NAR")
		}
		return u, c.checkScheme(u)
	}
	// With exactly one leading slash nothing in it can be taken for a host.
	ref, err := url.Parse("/" + strings.TrimLeft(text, "/"))
	if err != nil {
		return nil, err
	}
	if slices.Contains(strings.Split(ref.Path, "/"), "..") {
		return nil, fmt.Errorf("URL %.200q leads out of the cache", text)
	}
	u := c.base.JoinPath(ref.EscapedPath())
	u.RawQuery = ref.RawQuery
	return u, nil
}

// stream is a response body on its way through the decoders.
type stream struct {
	plain    io.Reader
	offset   int64       // of the first byte of plain
	decoders []io.Closer // and what reads ahead of them
	body     io.Closer
	cancel   context.CancelFunc
}

// open sends a request. size is the length of the plain file at most, in bytes,
// and bounds the encoded one too.
func (c *Client) open(ctx context.Context, r request, size int64) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.get(ctx, r)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &stream{body: resp.Body, cancel: cancel}
	// No encoder makes data much longer. This bounds input that decodes to
	// nothing: empty blocks, padding.
	body := io.LimitReader(resp.Body, size+size/8+maxOverhead)
	s.plain = paced(ctx, &progressReader{r: body, cancel: cancel})
	if err := s.begin(resp, r.offset, size); err != nil {
		cancel()
		return nil, errors.Join(err, resp.Body.Close())
	}
	return s, nil
}

func (s *stream) begin(resp *http.Response, offset, size int64) error {
	encoding := resp.Header.Get("Content-Encoding")
	if resp.StatusCode == http.StatusPartialContent {
		want := fmt.Sprintf("bytes %d-%d/%d", offset, size-1, size)
		if got := resp.Header.Get("Content-Range"); got != want {
			return fmt.Errorf("content range %.80q, want %q", got, want)
		}
		if encoding != "" && encoding != "identity" {
			return fmt.Errorf("part of a file in encoding %.40q", encoding)
		}
		s.offset = offset
		return nil
	}
	return s.decode(encoding)
}

// readAhead has the network read while the decoder is busy, if there is to be one.
func (s *stream) readAhead(info *narinfo.Info) error {
	if decompress.IsPlain(info.Compression) {
		return nil
	}
	ahead, err := readahead.NewReaderSize(s.plain, min(int(info.NARSize/aheadPiece)+2, aheadPieces), aheadPiece)
	if err != nil {
		return err
	}
	s.plain, s.decoders = ahead, append(s.decoders, ahead)
	return nil
}

func (s *stream) decode(method string) error {
	if decompress.IsPlain(method) {
		return nil
	}
	// Some decoders read byte by byte.
	r, err := decompress.NewReader(method, bufio.NewReader(s.plain))
	if err != nil {
		return err
	}
	s.plain = r
	s.decoders = append(s.decoders, r)
	return nil
}

// Read reads decoded bytes.
func (s *stream) Read(p []byte) (int, error) { return s.plain.Read(p) }

// Close ends the request.
func (s *stream) Close() error {
	s.cancel()
	var errs []error
	for _, d := range slices.Backward(s.decoders) {
		errs = append(errs, d.Close())
	}
	return errors.Join(append(errs, s.body.Close())...)
}
