package dev.foredeck.store;

import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/// Where a database is and how to get in.
///
/// @param jdbcUrl without user and password
/// @param user may be empty, where the driver's own default holds
/// @param password may be empty
public record DatabaseUrl(String jdbcUrl, String user, String password) {

  /// Takes `postgres://user:password@host:port/database?sslmode=require`, `postgresql://` and
  /// `jdbc:postgresql://` alike.
  ///
  /// @throws IllegalArgumentException whose message never holds the password
  public static DatabaseUrl parse(String text) {
    String rest = text.strip();
    if (rest.startsWith("jdbc:")) {
      rest = rest.substring("jdbc:".length());
    }
    if (!rest.startsWith("postgres://") && !rest.startsWith("postgresql://")) {
      throw malformed();
    }
    String authority = rest.substring(rest.indexOf("//") + 2);
    String path = "";
    String query = "";
    int question = authority.indexOf('?');
    if (question >= 0) {
      query = authority.substring(question + 1);
      authority = authority.substring(0, question);
    }
    int slash = authority.indexOf('/');
    if (slash >= 0) {
      path = authority.substring(slash + 1);
      authority = authority.substring(0, slash);
    }
    String user = "";
    String password = "";
    int at = authority.lastIndexOf('@');
    if (at >= 0) {
      String credentials = authority.substring(0, at);
      authority = authority.substring(at + 1);
      int colon = credentials.indexOf(':');
      user = decode(colon < 0 ? credentials : credentials.substring(0, colon));
      password = colon < 0 ? "" : decode(credentials.substring(colon + 1));
    }
    if (path.contains("/") || (authority.isEmpty() && path.isEmpty())) {
      throw malformed();
    }
    List<String> parameters = new ArrayList<>();
    for (String parameter : query.isEmpty() ? new String[0] : query.split("&", -1)) {
      if (parameter.startsWith("user=")) {
        user = decode(parameter.substring("user=".length()));
      } else if (parameter.startsWith("password=")) {
        password = decode(parameter.substring("password=".length()));
      } else {
        parameters.add(parameter);
      }
    }
    // Several hosts, as a,b:5433, are no URI; one host must be one.
    if (!authority.contains(",")) {
      checkHost(authority);
    }
    String jdbcUrl = "jdbc:postgresql://" + authority + "/" + path;
    if (!parameters.isEmpty()) {
      jdbcUrl += "?" + String.join("&", parameters);
    }
    return new DatabaseUrl(jdbcUrl, user, password);
  }

  private static void checkHost(String authority) {
    try {
      if (!authority.isEmpty() && URI.create("postgres://" + authority).getHost() == null) {
        throw malformed();
      }
    } catch (IllegalArgumentException _) {
      throw malformed();
    }
  }

  private static String decode(String text) {
    try {
      // A plus sign is a plus sign before the query.
      return URLDecoder.decode(text.replace("+", "%2B"), StandardCharsets.UTF_8);
    } catch (IllegalArgumentException _) {
      throw malformed();
    }
  }

  private static IllegalArgumentException malformed() {
    return new IllegalArgumentException(
        "the database URL must look like postgres://user:password@host:5432/database"
            + " (percent-encode special characters in user and password)");
  }

  /// This with more parameters of the driver.
  DatabaseUrl with(String parameters) {
    String join = jdbcUrl.contains("?") ? "&" : "?";
    return new DatabaseUrl(jdbcUrl + join + parameters, user, password);
  }

  @Override
  public String toString() {
    return "DatabaseUrl[" + jdbcUrl + "]";
  }
}
