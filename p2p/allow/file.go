package allow

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/libp2p/go-libp2p/core/peer"
)

// maxFile is the largest list that is read, in bytes: some 100,000 peers, each
// with a word on whose it is.
const maxFile = 8 << 20

// maxID is the longest peer ID, in bytes: base-58, which the longer ones are
// in, takes quadratic time. maxQuoted is how much an error shows of a line.
const (
	maxID     = 128
	maxQuoted = 60
)

func read(path string) ([]peer.ID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: is larger than %d bytes", path, maxFile)
	}
	peers, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	return peers, nil
}

// parse reads the text of a list. Its error begins with the number of the line.
func parse(text []byte) ([]peer.ID, error) {
	var peers []peer.ID
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line, _, _ = bytes.Cut(line, []byte("#"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		p, err := peer.Decode(string(line[:min(len(line), maxID+1)]))
		if err != nil || len(line) > maxID {
			return nil, fmt.Errorf("%d: %.*q is not a peer ID such as 12D3KooW…", number, maxQuoted, line)
		}
		peers = append(peers, p)
	}
	return peers, nil
}
