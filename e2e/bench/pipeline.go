package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// pipelineBlock is how many bytes go through a pipeline at a time, and are hashed
// by themselves: a chunk of the usual length.
const pipelineBlock = 64 << 10

// pipeline is a binary cache that does with a NAR what cannot be spared, and nothing
// else: one libp2p host reads it from its file and sends it, over TCP with TLS, to
// another, which hashes each block, and the whole, and passes it on.
type pipeline struct {
	*cargo
	sender, receiver host.Host
}

// throughPipeline calls use with the URL of a pipeline.
func (c *cargo) throughPipeline(use func(url string) (float64, error)) (float64, error) {
	sender, err := bareHost()
	if err != nil {
		return 0, err
	}
	defer sender.Close()
	receiver, err := bareHost()
	if err != nil {
		return 0, err
	}
	defer receiver.Close()
	sender.SetStreamHandler(bareProtocol, func(s network.Stream) {
		if err := sendFile(s, c.file()); err != nil {
			_ = s.Reset()
		}
	})
	if err := receiver.Connect(c.Context(), peer.AddrInfo{ID: sender.ID(), Addrs: sender.Addrs()}); err != nil {
		return 0, err
	}
	p := &pipeline{cargo: c, sender: sender, receiver: receiver}
	files := http.FileServer(http.Dir(c.cache))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+c.record.URL {
			files.ServeHTTP(w, r)
		} else if err := p.serve(r.Context(), w); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	return use(server.URL)
}

func sendFile(s network.Stream, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{f}, make([]byte, 2*pipelineBlock)); err != nil {
		return err
	}
	return s.CloseWrite()
}

// serve passes the NAR on. One goroutine reads and hashes blocks, another hashes the
// whole and writes.
func (p *pipeline) serve(ctx context.Context, w http.ResponseWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := p.receiver.NewStream(ctx, p.sender.ID(), bareProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }() // Nothing is to be had of it any more.
	if err := s.CloseWrite(); err != nil {
		return err
	}
	w.Header().Set("Content-Length", strconv.FormatInt(p.record.NARSize, 10))
	const ahead = 32
	free, full := make(chan []byte, ahead), make(chan []byte, ahead)
	for range ahead {
		free <- make([]byte, pipelineBlock)
	}
	go func() {
		defer close(full)
		for {
			select {
			case block := <-free:
				n, err := io.ReadFull(s, block[:pipelineBlock])
				_ = sha256.Sum256(block[:n])
				full <- block[:n] // which has room for all
				if err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	whole := sha256.New()
	for block := range full {
		_, _ = whole.Write(block) // Never fails.
		if _, err := w.Write(block); err != nil {
			return err
		}
		free <- block
	}
	if [sha256.Size]byte(whole.Sum(nil)) != p.record.NARHash {
		return errors.New("the pipeline has passed on something else than the NAR")
	}
	return nil
}
