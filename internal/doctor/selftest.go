package doctor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// selfTest fetches one path as Nix would, and checks what came.
func (x *examination) selfTest(ctx context.Context) []Check {
	const name = "self-test"
	part := x.patient.Path
	if part == "" {
		part = x.status.Store.Example
	}
	switch {
	case !x.up:
		return nil
	case part == "":
		return []Check{skipped(name, "nothing is shared here that could be tried: name a path with --path")}
	}
	started := time.Now()
	info, err := x.fetch(ctx, part)
	if err != nil {
		return []Check{failed(name, "p2pctl explain "+part+" tells more", "%s: %v", part, err)}
	}
	return []Check{ok(name, "%s: %s, verified, in %v", info.StorePath.Name(), explain.Size(info.NARSize),
		time.Since(started).Round(time.Millisecond))}
}

func (x *examination) fetch(ctx context.Context, part string) (*narinfo.Info, error) {
	text, err := x.get(ctx, "nix-cache-info")
	if err != nil {
		return nil, err
	}
	if err := text.Close(); err != nil {
		return nil, err
	}
	record, err := x.get(ctx, part+".narinfo")
	if err != nil {
		return nil, err
	}
	encoded, err := io.ReadAll(io.LimitReader(record, narinfo.MaxSize+1))
	if err := errors.Join(err, record.Close()); err != nil {
		return nil, err
	}
	info, err := narinfo.Parse(encoded)
	if err != nil {
		return nil, err
	}
	nar, err := x.get(ctx, info.URL)
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	n, err := io.Copy(hash, nar)
	if err := errors.Join(err, nar.Close()); err != nil {
		return nil, err
	}
	if got := nix.NARHash(hash.Sum(nil)); n != info.NARSize || got != info.NARHash {
		return nil, fmt.Errorf("%d bytes with the hash %s came instead of %d with %s", n, got, info.NARSize, info.NARHash)
	}
	return info, nil
}

func (x *examination) get(ctx context.Context, path string) (io.ReadCloser, error) {
	address := strings.TrimRight(x.status.Substituter, "/") + "/" + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := x.patient.HTTP.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s answers %s", address, response.Status), response.Body.Close())
	}
	return response.Body, nil
}
