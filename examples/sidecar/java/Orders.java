import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Receives orders from the sidecar. */
public class Orders {
  // The JDK reads no JSON. An application has a library for it.
  private static final Pattern ID = Pattern.compile("\"id\"\\s*:\\s*(\\d+)");

  public static void main(String[] arguments) throws IOException {
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8080), 0);
    server.createContext("/health", exchange -> answer(exchange, 204, ""));
    server.createContext("/orders", Orders::order);
    server.setExecutor(Executors.newFixedThreadPool(32)); // as many as the sidecar's `concurrency`
    server.start();
  }

  private static void order(HttpExchange exchange) throws IOException {
    byte[] body = exchange.getRequestBody().readAllBytes();
    Map<String, String> headers = new TreeMap<>();
    exchange.getRequestHeaders().forEach((name, values) -> headers.put(name, values.get(0)));
    try {
      if (!isGenuine(System.getenv("SIGNATURE_KEY"), headers, body)) {
        answer(exchange, 401, "the signature is wrong"); // rejected: a dead letter with this reason
        return;
      }
      Matcher id = ID.matcher(new String(body, StandardCharsets.UTF_8));
      if (!id.find()) {
        answer(exchange, 422, "an order needs an id"); // rejected
        return;
      }
      System.out.println("got " + id.group(1) + " " + lower(headers).get("dms-message-id"));
      answer(exchange, 204, ""); // done
    } catch (GeneralSecurityException | RuntimeException failure) {
      answer(exchange, 500, failure.toString()); // redelivered
    }
  }

  private static void answer(HttpExchange exchange, int status, String text) throws IOException {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    exchange.sendResponseHeaders(status, bytes.length == 0 ? -1 : bytes.length);
    exchange.getResponseBody().write(bytes);
    exchange.close();
  }

  /** Whether the sidecar has signed this request, with this key, in the last five minutes. */
  static boolean isGenuine(String key, Map<String, String> headers, byte[] body) throws GeneralSecurityException {
    Map<String, String> sorted = lower(headers);
    Matcher match = Pattern.compile("t=(\\d{1,12}),v2=([0-9a-f]{64})").matcher(sorted.getOrDefault("dms-signature-v2", ""));
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
