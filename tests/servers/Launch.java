import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.h2.H2Backend;
import java.util.List;

/** Serves MongoDB's wire protocol from a file: FILE PORT WIRE_VERSION. Prints "up" when it takes connections. */
public class Launch {
    /** What the server says it is. Clients look at the wire version; 8 is that of MongoDB 4.2. */
    record Version(int getWireVersion) implements MongoVersion {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(4, 2, 0);
        }

        @Override
        public String toVersionString() {
            return "4.2.0";
        }
    }

    public static void main(String[] arguments) throws Exception {
        String file = arguments[0];
        int port = Integer.parseInt(arguments[1]);
        int wireVersion = Integer.parseInt(arguments[2]);

        H2Backend backend = new H2Backend(file);
        backend.version(new Version(wireVersion));
        MongoServer server = new MongoServer(backend);
        // The backend writes in the background: without this, SIGTERM loses the last write.
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
        server.bind("127.0.0.1", port);
        System.out.println("up");
        Thread.currentThread().join();
    }
}
