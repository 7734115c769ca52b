package com.example.orders;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.RequestHeader;
import org.springframework.web.bind.annotation.RestController;

@SpringBootApplication
@RestController
public class Orders {
  private final ObjectMapper json = new ObjectMapper();

  public static void main(String[] arguments) {
    SpringApplication.run(Orders.class, "--server.port=8080", "--server.address=127.0.0.1", "--spring.main.banner-mode=off");
  }

  @GetMapping("/health")
  ResponseEntity<Void> health() {
    return ResponseEntity.noContent().build();
  }

  @PostMapping("/orders")
  ResponseEntity<String> order(@RequestHeader Map<String, String> headers, @RequestBody byte[] body)
      throws IOException, GeneralSecurityException {
    if (!isGenuine(System.getenv("SIGNATURE_KEY"), headers, body)) {
      return ResponseEntity.status(401).body("the signature is wrong"); // rejected: a dead letter with this reason
    }
    JsonNode order = json.readTree(body); // an exception answers 500: redelivered
    if (!order.has("id")) {
      return ResponseEntity.status(422).body("an order needs an id"); // rejected
    }
    System.out.println("got " + order.get("id") + " " + new TreeMap<>(lower(headers)).get("dms-message-id"));
    return ResponseEntity.noContent().build(); // done
  }

  /** Whether the sidecar has signed this request, with this key, in the last five minutes. */
  private static boolean isGenuine(String key, Map<String, String> headers, byte[] body) throws GeneralSecurityException {
    Map<String, String> sorted = lower(headers);
    Matcher match = Pattern.compile("t=(\\d+),v2=([0-9a-f]{64})").matcher(sorted.getOrDefault("dms-signature-v2", ""));
    if (!match.matches()) {
      return false;
    }
    StringBuilder text = new StringBuilder(match.group(1)).append('\n');
    sorted.forEach((name, value) -> {
      boolean signed = List.of("dms-", "ce-").stream().anyMatch(name::startsWith) && !name.startsWith("dms-signature");
      text.append(signed ? name + ":" + value + "\n" : "");
    });
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
    mac.update(text.append('\n').toString().getBytes(StandardCharsets.UTF_8));
    byte[] wanted = mac.doFinal(body);
    long age = Math.abs(System.currentTimeMillis() / 1000 - Long.parseLong(match.group(1)));
    return MessageDigest.isEqual(wanted, HexFormat.of().parseHex(match.group(2))) && age < 300;
  }

  private static Map<String, String> lower(Map<String, String> headers) {
    Map<String, String> sorted = new TreeMap<>();
    headers.forEach((name, value) -> sorted.put(name.toLowerCase(Locale.ROOT), value));
    return sorted;
  }
}
