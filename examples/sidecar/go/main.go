// Receives orders from the sidecar.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// isGenuine reports whether the sidecar has signed this request, with this key, in the last five minutes.
func isGenuine(key string, headers http.Header, body []byte) bool {
	stamp, signature, found := strings.Cut(strings.TrimPrefix(headers.Get("Dms-Signature-V2"), "t="), ",v2=")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if !found || err != nil {
		return false
	}
	var lines []string
	for name := range headers {
		lower := strings.ToLower(name)
		if (strings.HasPrefix(lower, "dms-") || strings.HasPrefix(lower, "ce-")) && !strings.HasPrefix(lower, "dms-signature") {
			lines = append(lines, lower+":"+headers.Get(name)+"\n")
		}
	}
	sort.Strings(lines)
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "%s\n%s\n", stamp, strings.Join(lines, ""))
	mac.Write(body)
	wanted := hex.EncodeToString(mac.Sum(nil))
	age := time.Since(time.Unix(seconds, 0))
	return hmac.Equal([]byte(wanted), []byte(signature)) && age.Abs() < 5*time.Minute
}

type order struct {
	ID *uint64 `json:"id"`
}

func receive(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, 1<<20))
	if err != nil {
		http.Error(response, "the body did not arrive", http.StatusInternalServerError) // redelivered
		return
	}
	if !isGenuine(os.Getenv("SIGNATURE_KEY"), request.Header, body) {
		http.Error(response, "the signature is wrong", http.StatusUnauthorized) // rejected: a dead letter with this reason
		return
	}
	var got order
	if json.Unmarshal(body, &got) != nil || got.ID == nil {
		http.Error(response, "an order needs an id", http.StatusUnprocessableEntity) // rejected
		return
	}
	fmt.Println("got", *got.ID, request.Header.Get("Dms-Message-Id"))
	response.WriteHeader(http.StatusNoContent) // done
}

func main() {
	http.HandleFunc("/health", func(response http.ResponseWriter, _ *http.Request) { response.WriteHeader(http.StatusNoContent) })
	http.HandleFunc("/orders", receive)
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}
