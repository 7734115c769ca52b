package com.example.orders;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.util.Map;
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
  ResponseEntity<String> order(
      @RequestHeader Map<String, String> headers, @RequestHeader(name = "Dms-Message-Id", required = false) String id, @RequestBody byte[] body)
      throws IOException, GeneralSecurityException {
    if (!Signature.isGenuine(System.getenv("SIGNATURE_KEY"), headers, body)) {
      return ResponseEntity.status(401).body("the signature is wrong"); // rejected: a dead letter with this reason
    }
    JsonNode order = json.readTree(body); // an exception answers 500: redelivered
    if (!order.has("id")) {
      return ResponseEntity.status(422).body("an order needs an id"); // rejected
    }
    System.out.println("got " + order.get("id") + " " + id);
    return ResponseEntity.noContent().build(); // done
  }
}
